"""Every family as MLX quantises it, each tensor in its own way, and in FP8 with a factor for each tile.

Codes are made up. What a model computes must be what one in F32 with the same values computes.
"""
import json
import math
import random
import struct

import families
import harness
from checkpoints import f32, read, write_model

IDS = families.IDS
CLOSE = 1e-4  # of the standard deviation of the logits
SHARD = "model-00001-of-00001.safetensors"
AFFINE = [(2, 32), (3, 64), (4, 32), (5, 128), (6, 32), (8, 64), (4, 64), (8, 32)]
E2M1 = [s * v for s in (1, -1) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6)]


def shape_of(family, **changes):
    """A config of few experts."""
    config = families.COMMON | {"model_type": family} | families.FAMILIES[family][1] | changes
    for field in ("num_experts", "num_local_experts", "n_routed_experts"):
        if field in config:
            config[field] = 4
    if "n_group" in config:
        config |= {"n_group": 2, "topk_group": 2}
    return config | {"num_experts_per_tok": 2}


def synth(sluice, folder, config, *options):
    shape = folder / "shape.json"
    shape.write_text(json.dumps(config))
    made = sluice.run("synth", folder / "source", "--like", shape, *options)
    if made.code:
        raise AssertionError(repr(made))
    return folder / "source"


def words_of_bf16(values):
    return b"".join(struct.pack("<f", v)[2:] for v in values)


def words_of_f16(values):
    return struct.pack(f"<{len(values)}e", *values)


def f16(value):
    """Rounded to what F16 has."""
    return struct.unpack("<e", struct.pack("<e", value))[0]


def bf16(value):
    """Cut off to what BF16 has."""
    return struct.unpack("<f", b"\0\0" + struct.pack("<f", value)[2:])[0]


# ----------------------------------------------------------------------------------------------- MLX


def affine(rng, rows, cols, bits, group, deviation, number):
    """(codes, scales, biases, values) of rows of packed groups; number is f16 or bf16."""
    codes, scales, biases, values = bytearray(), [], [], []
    levels, mask = (1 << bits) - 1, (1 << bits) - 1
    for _ in range(rows):
        row = rng.randbytes(cols * bits // 8)
        codes += row
        stream = int.from_bytes(row, "little")
        for first in range(0, cols, group):
            scale = number(deviation * math.sqrt(12 / (levels * (levels + 2))) * rng.uniform(0.5, 1.5))
            bias = number(-scale * levels / 2)
            scales.append(scale)
            biases.append(bias)
            part = stream >> first * bits
            for i in range(group):
                values.append((part >> i * bits & mask) * scale + bias)
    return bytes(codes), scales, biases, values


FLOATS = ((bf16, "BF16", words_of_bf16), (f16, "F16", words_of_f16))


def mxfp4(rng, rows, cols, deviation):
    """(codes, scales, values)"""
    codes = rng.randbytes(rows * cols // 2)
    middle = 127 + round(math.log2(deviation / 2.9))
    scales = bytes(middle + rng.randint(-1, 1) for _ in range(rows * cols // 32))
    values = [E2M1[code] * 2.0 ** (scales[i // 16] - 127)
              for i, byte in enumerate(codes) for code in (byte & 15, byte >> 4)]
    return codes, scales, values


def by_mlx(tensors):
    """(packed, plain, quantization) of a checkpoint that has 8 bits in groups of 32."""
    rng, turn = random.Random(5), 0
    packed, plain, section = {}, {}, {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    for name, (dtype, shape, data) in tensors.items():
        base = name.rsplit(".", 1)[0]
        if dtype != "U32":
            if base + ".weight" not in tensors or tensors[base + ".weight"][0] != "U32" \
                    or not name.endswith((".scales", ".biases")):
                packed[name] = plain[name] = (dtype, shape, data)
            continue
        cols, rows = shape[-1] * 4, math.prod(shape[:-1])
        scale = struct.unpack("<f", b"\0\0" + tensors[base + ".scales"][2][:2])[0]
        deviation = scale * math.sqrt(255 * 257 / 12)
        turn += 1
        if turn % 3 == 0:
            codes, scales, values = mxfp4(rng, rows, cols, deviation)
            packed[name] = ("U32", shape[:-1] + [cols // 8], codes)
            packed[base + ".scales"] = ("U8", shape[:-1] + [cols // 32], scales)
        elif turn % 7 == 0:
            values = [bf16(rng.uniform(-1.7, 1.7) * deviation) for _ in range(rows * cols)]
            packed[name] = ("BF16", shape[:-1] + [cols], words_of_bf16(values))
            section[base] = False
        else:
            bits, group = next(w for w in AFFINE[turn % len(AFFINE):] + AFFINE if cols % w[1] == 0)
            number, dtype, words = FLOATS[turn % 2]
            codes, scales, biases, values = affine(rng, rows, cols, bits, group, deviation, number)
            packed[name] = ("U32", shape[:-1] + [cols * bits // 32], codes)
            for part, floats in ((".scales", scales), (".biases", biases)):
                packed[base + part] = (dtype, shape[:-1] + [cols // group], words(floats))
            section[base] = {"bits": bits, "group_size": group}
        plain[name] = f32(shape[:-1] + [cols], values)
    return packed, plain, section


# ----------------------------------------------------------------------------------------------- FP8


def e4m3(code):
    exponent, fraction = code >> 3 & 15, code & 7
    size = math.ldexp(8 + fraction, exponent - 10) if exponent else math.ldexp(fraction, -9)
    return -size if code >> 7 else size


NO_NAN = bytes(code - (code & 127 == 127) for code in range(256))
E4M3 = [e4m3(NO_NAN[code]) for code in range(256)]
E4M3_RMS = math.sqrt(sum(v * v for v in E4M3) / 256)
WHOLE = ("embed_tokens", "lm_head", ".gate.weight", "shared_expert_gate", "in_proj_ba")
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def by_tiles(tensors):
    """(packed, plain) of a checkpoint in BF16."""
    rng, turn = random.Random(7), 0
    packed, plain = {}, {}
    for name, (dtype, shape, data) in tensors.items():
        if len(shape) != 2 or any(part in name for part in WHOLE) or not name.endswith(".weight"):
            packed[name] = plain[name] = (dtype, shape, data)
            continue
        rows, cols = shape
        turn += 1
        down, across = (rows + 127) // 128, (cols + 127) // 128
        scales = [bf16(rng.uniform(0.5, 1.5) / math.sqrt(cols) / E4M3_RMS) for _ in range(down * across)]
        codes, values = rng.randbytes(rows * cols).translate(NO_NAN), []
        for at in range(rows):
            for tile in range(across):
                part = codes[at * cols + tile * 128:at * cols + min(cols, tile * 128 + 128)]
                scale = scales[at // 128 * across + tile]
                values += [E4M3[code] * scale for code in part]
        packed[name] = ("F8_E4M3", shape, codes)
        packed[name + "_scale_inv"] = (f32([down, across], scales) if turn % 2 else
                                       ("BF16", [down, across], words_of_bf16(scales)))
        plain[name] = f32(shape, values)
    return packed, plain


# --------------------------------------------------------------------------------------------- cases


def check(tap, sluice, name, folder, model, plain):
    with tap.case(f"{name}: computes what the same values in F32 do") as complaints:
        want = harness.read_safetensors(sluice.logits(plain, IDS, folder, "--precision", "exact"))[1]
        got = harness.read_safetensors(sluice.logits(model, IDS, folder, "--precision", "exact"))[1]
        allowed = CLOSE * harness.standard_deviation(want["logits"].values)
        worst = harness.largest_difference(want["logits"].values, got["logits"].values)
        if not worst <= allowed:
            complaints.append(f"differs by {worst:.3g}, allowed {allowed:.3g}")
    with tap.case(f"{name}: streamed, in chunks and packed: the same bits") as complaints:
        packed = folder / "packed"
        if sluice.run("pack", model, packed).code:
            complaints.append("cannot be packed")
        for precision in ("exact", "fast"):
            common = (model, IDS, folder, "--precision", precision)
            whole = sluice.logits(*common, "--io", "mmap").read_bytes()
            if sluice.logits(*common, "--slots", 3, "--chunk", 7).read_bytes() != whole:
                complaints.append(f"{precision}: other bits")
            if sluice.logits(packed, IDS, folder, "--precision", precision).read_bytes() != whole:
                complaints.append(f"{precision}: other bits when packed")


def check_mlx(tap, sluice, family):
    with harness.temporary_folder() as folder:
        source = synth(sluice, folder, shape_of(family), "--bits", 8, "--group", 32)
        packed, plain, section = by_mlx(read(source / SHARD))
        check(tap, sluice, f"{family}, MLX", folder,
              write_model(folder / "model", source, packed, "mlx", quantization=section),
              write_model(folder / "plain", source, plain, "mlx", quantization=None))


def check_fp8(tap, sluice, family):
    changes = {"hidden_size": 160, "moe_intermediate_size": 136, "intermediate_size": 136, "v_head_dim": 24}
    config = shape_of(family)
    config |= {k: v for k, v in changes.items() if k in config}
    with harness.temporary_folder() as folder:
        source = synth(sluice, folder, config, "--layout", "bf16")
        packed, plain = by_tiles(read(source / SHARD))
        fmt = "float8_e4m3fn" if family == "minimax_m2" else "e4m3"  # as published
        check(tap, sluice, f"{family}, FP8", folder,
              write_model(folder / "model", source, packed, quantization_config=FP8 | {"fmt": fmt}),
              write_model(folder / "plain", source, plain))


def tests(tap, sluice):
    for family in families.FAMILIES if harness.SLOW else ("deepseek_v3", "gpt_oss"):
        check_mlx(tap, sluice, family)
    # Those whose experts are published one by one.
    for family in ("qwen3_next", "qwen3_moe", "deepseek_v3", "glm4_moe", "minimax_m2") if harness.SLOW \
            else ("deepseek_v3",):
        check_fp8(tap, sluice, family)


harness.main(tests)

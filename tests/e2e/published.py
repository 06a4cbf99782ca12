"""DeepSeek-V3 and GPT-OSS in the other layouts that they are published in.

A reference checkpoint is rewritten: split by MLX, in FP8 with a factor for each tile, in MXFP4. What it computes must be
what a plain checkpoint with the same values computes.
"""
import json
import math
import struct

import gguf_writer
import harness
from checkpoints import WEIGHTS, f32, read, write_model

CLOSE = 1e-4  # of the standard deviation of the logits


def floats(tensor):
    """The values of a BF16 tensor."""
    words = struct.unpack(f"<{len(tensor[2]) // 2}H", tensor[2])
    return [struct.unpack("<f", struct.pack("<I", w << 16))[0] for w in words]


def bf16(shape, values):
    """Of values that are exact in BF16."""
    words = [struct.unpack("<I", struct.pack("<f", v))[0] for v in values]
    if any(w & 0xffff for w in words):
        raise ValueError("not exact in BF16")
    return ("BF16", shape, struct.pack(f"<{len(words)}H", *(w >> 16 for w in words)))


def transposed(values, n, rows, cols):
    """[n][rows][cols] as [n][cols][rows]"""
    return [values[(e * rows + r) * cols + c] for e in range(n) for c in range(cols) for r in range(rows)]


# --------------------------------------------------------------------------------------- DeepSeek-V3


def split_kv_b(source, tensors):
    """embed_q [heads][rank][nope] and unembed_out [heads][dv][rank], as MLX has them."""
    config = json.loads((source / "config.json").read_text())
    heads, rank = config["num_attention_heads"], config["kv_lora_rank"]
    nope, dv = config["qk_nope_head_dim"], config["v_head_dim"]
    out = {}
    for name, tensor in tensors.items():
        if not name.endswith("kv_b_proj.weight"):
            out[name] = tensor
            continue
        base = name[:-len("kv_b_proj.weight")]
        values, keys, rest = floats(tensor), [], []
        for h in range(heads):
            at = h * (nope + dv) * rank
            keys += transposed(values[at:at + nope * rank], 1, nope, rank)
            rest += values[at + nope * rank:at + (nope + dv) * rank]
        out[base + "embed_q.weight"] = bf16([heads, rank, nope], keys)
        out[base + "unembed_out.weight"] = bf16([heads, dv, rank], rest)
    return out


def e4m3(code):
    """What a byte means; NaN is left out by the caller."""
    exponent, fraction = code >> 3 & 15, code & 7
    size = math.ldexp(8 + fraction, exponent - 10) if exponent else math.ldexp(fraction, -9)
    return -size if code >> 7 else size


E4M3 = sorted((e4m3(code), code) for code in range(256) if code & 127 != 127)


def nearest(table, value):
    low, high = 0, len(table) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if table[middle][0] < value else (low, middle)
    if low and value - table[low - 1][0] < table[low][0] - value:
        low -= 1
    return table[low]


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def fp8(tensors):
    """(packed, plain): the projections in FP8, and the same values in F32."""
    packed, plain = {}, {}
    for name, tensor in tensors.items():
        packed[name] = plain[name] = tensor
        whole = ("embed_tokens", "lm_head", "mlp.gate.")
        if len(tensor[1]) != 2 or any(part in name for part in whole):
            continue
        (rows, cols), values = tensor[1], floats(tensor)
        across = (cols + 127) // 128
        scales = [0.0] * ((rows + 127) // 128 * across)
        for i, value in enumerate(values):
            at = i // cols // 128 * across + i % cols // 128
            scales[at] = max(scales[at], single(abs(value) / 448))
        codes, back = bytearray(), []
        for i, value in enumerate(values):
            scale = scales[i // cols // 128 * across + i % cols // 128]
            meant, code = nearest(E4M3, value / scale)
            codes.append(code)
            back.append(single(meant * scale))
        packed[name] = ("F8_E4M3", tensor[1], bytes(codes))
        packed[name + "_scale_inv"] = f32([(rows + 127) // 128, across], scales)
        plain[name] = f32(tensor[1], back)
    return packed, plain


FP8 = {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                               "weight_block_size": [128, 128]}}

# ------------------------------------------------------------------------------------------- GPT-OSS

E2M1 = sorted((sign * size, code + (8 if sign < 0 else 0))
              for code, size in enumerate((0, 0.5, 1, 1.5, 2, 3, 4, 6)) for sign in (1, -1) if size or sign > 0)


def is_expert(name):
    return name.endswith(("experts.gate_up_proj", "experts.down_proj"))


def split_by_mlx(tensors):
    """gate_proj, up_proj and down_proj as outputs by inputs, each with a bias."""
    out = {}
    for name, tensor in tensors.items():
        shape, values = tensor[1], floats(tensor)
        if name.endswith("gate_up_proj"):
            n, hidden, both = shape
            turned = transposed(values, n, hidden, both)
            for part, first in (("gate_proj", 0), ("up_proj", 1)):
                rows = [turned[(e * both + r) * hidden:(e * both + r + 1) * hidden]
                        for e in range(n) for r in range(first, both, 2)]
                out[name.replace("gate_up_proj", part) + ".weight"] = bf16(
                    [n, both // 2, hidden], [v for row in rows for v in row])
        elif name.endswith("gate_up_proj_bias"):
            for part, first in (("gate_proj", 0), ("up_proj", 1)):
                out[name.replace("gate_up_proj_bias", part) + ".bias"] = bf16(
                    [shape[0], shape[1] // 2], values[first::2])
        elif name.endswith("experts.down_proj"):
            n, inter, hidden = shape
            out[name + ".weight"] = bf16([n, hidden, inter], transposed(values, n, inter, hidden))
        elif name.endswith("down_proj_bias"):
            out[name[:-len("_bias")] + ".bias"] = tensor
        else:
            out[name] = tensor
    return out


def mxfp4(tensors):
    """(packed, plain): experts as blocks and scales, and the same values in BF16."""
    packed, plain = {}, {}
    for name, tensor in tensors.items():
        if not is_expert(name):
            packed[name] = plain[name] = tensor
            continue
        n, inputs, outputs = tensor[1]
        values = transposed(floats(tensor), n, inputs, outputs)
        blocks, scales, back = bytearray(), bytearray(), []
        for at in range(0, len(values), 32):
            group = values[at:at + 32]
            exponent = math.frexp(max(map(abs, group)) / 6 or 1)[1]
            found = [nearest(E2M1, math.ldexp(v, -exponent)) for v in group]
            scales.append(exponent + 127)
            blocks += bytes(a[1] | b[1] << 4 for a, b in zip(found[::2], found[1::2]))
            back += [math.ldexp(meant, exponent) for meant, _ in found]
        packed[name + "_blocks"] = ("U8", [n, outputs, inputs // 32, 16], bytes(blocks))
        packed[name + "_scales"] = ("U8", [n, outputs, inputs // 32], bytes(scales))
        plain[name] = bf16(tensor[1], transposed(back, n, outputs, inputs))
    return packed, plain


def mlx_mxfp4(packed):
    """Blocks as words of gate_proj, up_proj and down_proj."""
    out = {}
    for name, (dtype, shape, values) in packed.items():
        if not name.endswith(("_blocks", "_scales")):
            part = split_by_mlx({name: (dtype, shape, values)}) if "experts" in name else {}
            out |= part or {name: (dtype, shape, values)}
            continue
        base, kind = name.rsplit("_", 1)
        n, rows = shape[:2]
        width = len(values) // (n * rows)
        row = [values[i * width:(i + 1) * width] for i in range(n * rows)]
        tail = ".weight" if kind == "blocks" else ".scales"
        form = ("U32", width // 4) if kind == "blocks" else ("U8", width)
        if base.endswith("down_proj"):
            out[base + tail] = (form[0], [n, rows, form[1]], values)
            continue
        for part, first in (("gate_proj", 0), ("up_proj", 1)):
            out[base.replace("gate_up_proj", part) + tail] = (
                form[0], [n, rows // 2, form[1]], b"".join(row[first::2]))
    return out


# --------------------------------------------------------------------------------------------- cases


def compare(sluice, ids, folder, model, plain, complaints, precision="exact"):
    _, want = harness.read_safetensors(sluice.logits(plain, ids, folder, "--precision", "exact"))
    _, got = harness.read_safetensors(sluice.logits(model, ids, folder, "--precision", precision))
    allowed = (CLOSE if precision == "exact" else 0.5) * harness.standard_deviation(want["logits"].values)
    worst = harness.largest_difference(want["logits"].values, got["logits"].values)
    if not worst <= allowed:
        complaints.append(f"{precision}: differs by {worst:.3g}, allowed {allowed:.3g}")


def check(tap, sluice, name, case, make):
    """make(source, tensors) gives (tensors, fields) of the layout, and tensors of the plain one or None."""
    source = harness.REFERENCES / case
    _, reference = harness.read_safetensors(source / "reference.safetensors")
    ids = list(reference["input_ids"].values)
    with harness.temporary_folder() as folder:
        (tensors, fields), plain = make(source, read(source / WEIGHTS))
        model = write_model(folder / "model", source, tensors, **fields)
        same = write_model(folder / "plain", source, plain) if plain else source
        with tap.case(f"{case}, {name}: computes what the plain checkpoint does") as complaints:
            compare(sluice, ids, folder, model, same, complaints)
        with tap.case(f"{case}, {name}: chunks and streaming change no bit") as complaints:
            for precision in ("exact", "fast"):
                common = (model, ids, folder, "--precision", precision)
                whole = sluice.logits(*common, "--io", "mmap").read_bytes()
                for way in (("--chunk", 1), ("--slots", 4, "--chunk", 7)):
                    if sluice.logits(*common, *way).read_bytes() != whole:
                        complaints.append(f"{precision}: {way} gives other bits")
        with tap.case(f"{case}, {name}: packed, it is the same") as complaints:
            packed = folder / "packed"
            made = sluice.run("pack", model, packed)
            if made.code:
                complaints.append(made)
            elif (sluice.logits(packed, ids, folder).read_bytes()
                  != sluice.logits(model, ids, folder).read_bytes()):
                complaints.append("other bits")


def check_gguf(tap, sluice, case):
    """GPT-OSS in GGUF has its experts in MXFP4, too."""
    source = harness.REFERENCES / case
    ids = list(harness.read_safetensors(source / "reference.safetensors")[1]["input_ids"].values)
    with harness.temporary_folder() as folder:
        plain = write_model(folder / "plain", source, mxfp4(read(source / WEIGHTS))[1])
        keys, tensors = gguf_writer.gpt_oss(plain)
        for name, tensor in tensors.items():
            if name.endswith("_exps.weight"):
                tensors[name] = gguf_writer.mxfp4(tensor)
        gguf_writer.write(folder / "model.gguf", keys, tensors)
        with tap.case(f"{case}, MXFP4 in GGUF: computes what the plain checkpoint does") as complaints:
            for precision in ("exact", "fast"):
                compare(sluice, ids, folder, folder / "model.gguf", plain, complaints, precision)


def tests(tap, sluice):
    check(tap, sluice, "split by MLX", "deepseek_v3-groups",
          lambda source, t: ((split_kv_b(source, t), {"form": "mlx"}), None))
    check(tap, sluice, "FP8", "deepseek_v3-no-lora",
          lambda _, t: ((fp8(t)[0], FP8), fp8(t)[1]))
    check(tap, sluice, "as published", "gpt_oss-tied", lambda _, t: ((t, {}), None))
    check(tap, sluice, "split by MLX", "gpt_oss-window", lambda _, t: ((split_by_mlx(t), {"form": "mlx"}), None))
    check(tap, sluice, "MXFP4", "gpt_oss",
          lambda _, t: ((mxfp4(t)[0], {"quantization_config": {"quant_method": "mxfp4"}}), mxfp4(t)[1]))
    check(tap, sluice, "MXFP4 by MLX", "gpt_oss",
          lambda _, t: ((mlx_mxfp4(mxfp4(t)[0]),
                         {"form": "mlx", "quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}), mxfp4(t)[1]))
    check_gguf(tap, sluice, "gpt_oss")


harness.main(tests)

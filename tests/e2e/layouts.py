"""The layouts of each family: experts fused in 3-D as newer converters save them, or as MLX stacks them.

A reference checkpoint is rewritten, and its logits must not change in a bit.
"""
import re
import struct

import harness
from checkpoints import WEIGHTS, read, write

CASES = ["glm4_moe-groups", "minimax_m2", "mixtral-window", "olmoe", "qwen3_moe-dense-tied",
         "qwen3_next-dense", "qwen3_next-interval"]
EXPERT = re.compile(r"(.*)\.experts\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w3|w2)\.weight")
ROLES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
NORMS = re.compile(r"(.*layernorm|model\.norm|.*self_attn\.[qk]_norm)\.weight")


def stacks(tensors):
    """{module: {role: [(shape, bytes) of each expert]}}, and all other tensors."""
    modules, rest = {}, {}
    for name, tensor in tensors.items():
        match = EXPERT.fullmatch(name)
        if not match:
            rest[name] = tensor
            continue
        role = ROLES.get(match[3], match[3])
        modules.setdefault(match[1], {}).setdefault(role, {})[int(match[2])] = tensor
    ordered = {module: {role: [experts[e] for e in range(len(experts))] for role, experts in roles.items()}
               for module, roles in modules.items()}
    return ordered, rest


def fused(tensors):
    """gate_up_proj and down_proj of all experts, in a module that is always called mlp."""
    modules, rest = stacks(tensors)
    out = {name.replace("block_sparse_moe", "mlp"): tensor for name, tensor in rest.items()}
    for module, roles in modules.items():
        base = module.replace("block_sparse_moe", "mlp") + ".experts"
        gate, up, down = (roles[r] for r in ("gate_proj", "up_proj", "down_proj"))
        dtype, (inter, hidden), _ = gate[0]
        out[f"{base}.gate_up_proj"] = (dtype, [len(gate), 2 * inter, hidden],
                                       b"".join(g[2] + u[2] for g, u in zip(gate, up)))
        out[f"{base}.down_proj"] = (dtype, [len(down), hidden, inter], b"".join(d[2] for d in down))
    return out


def plus_one(tensor):
    """bf16 as f32, and one more."""
    _, shape, values = tensor
    words = struct.unpack(f"<{len(values) // 2}H", values)
    floats = [struct.unpack("<f", struct.pack("<I", w << 16))[0] + 1 for w in words]
    return ("F32", shape, struct.pack(f"<{len(floats)}f", *floats))


def mlx(tensors):
    """switch_mlp; convolutions and norms as MLX has them, for the family that differs there."""
    modules, out = stacks(tensors)
    for module, roles in modules.items():
        for role, experts in roles.items():
            dtype, shape, _ = experts[0]
            out[f"{module}.switch_mlp.{role}.weight"] = (dtype, [len(experts), *shape],
                                                         b"".join(e[2] for e in experts))
    if any("linear_attn" in name for name in out):
        for name, (dtype, shape, values) in list(out.items()):
            if name.endswith("conv1d.weight"):
                out[name] = (dtype, [shape[0], shape[2], 1], values)
            elif NORMS.fullmatch(name):
                out[name] = plus_one(out[name])
    return out


def tests(tap, sluice):
    for case in CASES:
        source = harness.REFERENCES / case
        _, want = harness.read_safetensors(source / "reference.safetensors")
        ids = list(want["input_ids"].values)
        tensors = read(source / WEIGHTS)
        for form, convert in (("pt", fused), ("mlx", mlx)):
            with tap.case(f"{case}: {convert.__name__}: not a bit of the logits differs") as complaints:
                with harness.temporary_folder() as folder:
                    model = harness.copy_model(source, folder / "model", "reference.safetensors")
                    write(model / WEIGHTS, convert(tensors), form)
                    got = sluice.logits(model, ids, folder, "--precision", "exact").read_bytes()
                    if got != sluice.logits(source, ids, folder, "--precision", "exact").read_bytes():
                        complaints.append("they do")


harness.main(tests)

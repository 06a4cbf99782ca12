"""Writes the tiny random Qwen3.5-MoE checkpoints of this folder, each with the outputs transformers computes for it.

    python3 make_qwen3_5_moe.py [--out FOLDER] [CASE...]

Needs PyTorch and transformers; no accelerator, no network. README.md beside this file lists the cases and
the layout of reference.safetensors.

Every stored weight has one exact meaning (BF16, F16, F32, or MLX's code * scale + bias), exact in fp32 too, and the
reference is what Hugging Face transformers computes from these values in fp32 on the CPU: eager attention, no cache.
The random weights of a case come from a seed, the first one whose outputs hold no near tie: neither between the two
best logits of a greedy step nor between the last expert chosen and the first one not chosen. So an implementation that
is right to about 1e-4 meets no decision that rounding can turn.
"""

import argparse
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from torch.nn.functional import cosine_similarity
from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForCausalLM, Qwen3_5MoeForConditionalGeneration
from transformers import Qwen3_5MoeTextConfig

from plain_qwen3_5_moe import Checkpoint, compare

GREEDY_STEPS = 24
LEAST_MARGIN = 1e-2  # between the two best logits of a greedy step
LEAST_ROUTER_GAP = 1e-3  # between the router logits of the last chosen and the first rejected expert
LEAST_VARIETY = 5  # distinct ids in the greedy continuation
LOGITS_STD = (0.5, 6.0)
MOST_SEEDS = 200

DTYPE_NAMES = {
    torch.int64: "I64",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}

FULL, LINEAR = "full_attention", "linear_attention"


@dataclass(frozen=True)
class Case:
    """One checkpoint: the shape of the model and the way it is stored."""

    shape: dict
    layout: str  # per_expert, fused, multimodal or mlx
    tokens: int = 24
    prompt_len: int = 8
    dtype: torch.dtype = torch.bfloat16
    keep_f32: tuple = ()  # names that end like this are stored as F32 instead
    shards: int = 1
    index: bool = True
    quantization: dict | None = None
    left_plain: tuple = ()  # base names that are not quantised, though no override says so
    config_extra: dict = field(default_factory=dict)  # goes into the text config; None removes a key
    generation: dict | None = None


# ---------------------------------------------------------------------------------------------------- the cases


def shape(hidden, layers, attention, linear, moe, vocab=320, rotary=0.25, theta=10000.0, eps=1e-6, tied=False):
    """The settings of Qwen3_5MoeTextConfig.

    attention: query heads, key/value heads, head dim; linear: key heads, value heads, key head dim, value head dim,
    kernel; moe: experts, experts per token, intermediate size, intermediate size of the shared expert.
    """
    rotary_pairs = int(attention[2] * rotary) // 2
    third = rotary_pairs // 3
    return {
        "hidden_size": hidden,
        "vocab_size": vocab,
        "num_hidden_layers": len(layers),
        "layer_types": list(layers),
        **dict(zip(("num_attention_heads", "num_key_value_heads", "head_dim"), attention, strict=True)),
        "linear_num_key_heads": linear[0],
        "linear_num_value_heads": linear[1],
        "linear_key_head_dim": linear[2],
        "linear_value_head_dim": linear[3],
        "linear_conv_kernel_dim": linear[4],
        "num_experts": moe[0],
        "num_experts_per_tok": moe[1],
        "moe_intermediate_size": moe[2],
        "shared_expert_intermediate_size": moe[3],
        "partial_rotary_factor": rotary,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": theta,
            "partial_rotary_factor": rotary,
            "mrope_interleaved": True,
            "mrope_section": [rotary_pairs - 2 * third, third, third],
        },
        "max_position_embeddings": 512,
        "rms_norm_eps": eps,
        "tie_word_embeddings": tied,
    }


def interval(count, every):
    """The layer types that full_attention_interval stands for."""
    return [LINEAR if (i + 1) % every else FULL for i in range(count)]


def mlx_case(shape, every, quantization=None, **more):
    return Case(
        shape=shape,
        layout="mlx",
        tokens=more.pop("tokens", 40),
        keep_f32=("A_log",),
        quantization=quantization,
        config_extra={"full_attention_interval": every} | more.pop("config_extra", {}),
        **more,
    )


def affine(bits, group_size, overrides=None, mode="affine"):
    """MLX's `quantization` table; overrides: base name without prefix -> (bits, group size), or False for none."""
    table = {"group_size": group_size, "bits": bits} | ({"mode": mode} if mode else {})
    for name, settings in (overrides or {}).items():
        table[f"language_model.{name}"] = settings and {"group_size": settings[1], "bits": settings[0]}
    return table


def routers(layers, bits, group_size):
    return {f"model.layers.{i}.mlp.gate": (bits, group_size) for i in range(layers)}


MIXED = routers(3, 8, 64) | {
    "lm_head": (6, 64),
    "model.embed_tokens": (6, 32),
    "model.layers.0.linear_attn.in_proj_qkv": (5, 64),
    "model.layers.0.mlp.switch_mlp.gate_proj": (2, 32),
    "model.layers.0.mlp.switch_mlp.up_proj": (2, 64),
    "model.layers.0.mlp.shared_expert_gate": False,
    "model.layers.1.linear_attn.out_proj": False,
    "model.layers.1.mlp.switch_mlp.down_proj": (5, 64),
    "model.layers.2.self_attn.v_proj": (6, 32),
    "model.layers.2.self_attn.o_proj": (6, 128),
    "model.layers.2.mlp.shared_expert.down_proj": (4, 32),
}

CASES = {
    "tied": Case(
        shape(
            96,
            [FULL, LINEAR, LINEAR, FULL, LINEAR],
            (6, 3, 16),
            (3, 6, 16, 24, 3),
            (5, 2, 10, 12),
            vocab=304,
            rotary=0.5,
            tied=True,
        ),
        layout="per_expert",
        tokens=20,
    ),
    "all-full": Case(
        shape(96, [FULL, FULL], (3, 1, 64), (1, 1, 16, 16, 4), (4, 1, 16, 16), theta=1e6, eps=1e-3),
        layout="per_expert",
        tokens=32,
        prompt_len=1,
    ),
    "all-linear": Case(
        shape(96, [LINEAR, LINEAR], (2, 1, 16), (3, 3, 24, 16, 5), (4, 2, 16, 8), 256, eps=1e-3),
        layout="fused",
        tokens=150,
        prompt_len=70,
    ),
    "sharded": Case(
        shape(96, [LINEAR, FULL], (2, 1, 32), (2, 4, 16, 16, 4), (40, 6, 6, 10)),
        layout="multimodal",
        tokens=32,
        prompt_len=7,
        keep_f32=("linear_attn.A_log", "linear_attn.norm.weight"),
        shards=3,
    ),
    "untied-f16": Case(
        shape(104, [LINEAR, FULL, LINEAR], (4, 2, 24), (1, 3, 20, 12, 4), (4, 3, 20, 28), rotary=1.0),
        layout="per_expert",
        dtype=torch.float16,
        shards=2,
        index=False,
        generation={"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
    ),
    "mlx-bf16": mlx_case(
        shape(96, interval(3, 2), (2, 1, 32), (2, 4, 16, 16, 4), (4, 2, 16, 16), 256),
        every=2,
        tokens=24,
        config_extra={"layer_types": None},
    ),
    "mlx-mixed": mlx_case(
        shape(128, interval(3, 3), (4, 2, 32), (2, 4, 16, 32, 4), (4, 2, 64, 64)),
        every=3,
        quantization=affine(3, 32, MIXED),
        left_plain=("language_model.model.layers.1.mlp.shared_expert_gate",),
    ),
    "mlx2-g32": mlx_case(
        shape(160, interval(3, 2), (2, 1, 48), (2, 4, 16, 16, 2), (6, 4, 32, 64)),
        every=2,
        tokens=32,
        quantization=affine(2, 32),
    ),
    "mlx5-g32": mlx_case(
        shape(96, interval(3, 3), (3, 1, 32), (1, 2, 32, 32, 4), (6, 3, 32, 32)),
        every=3,
        tokens=32,
        quantization=affine(5, 32, routers(3, 8, 32)),
    ),
    "mlx6-g128": mlx_case(
        shape(128, interval(2, 2), (4, 1, 32), (2, 4, 32, 32, 4), (3, 2, 128, 128), 256, 0.5, tied=True),
        every=2,
        tokens=24,
        quantization=affine(6, 128, routers(2, 8, 64)),
    ),
    "mlx8-g64": mlx_case(
        shape(128, interval(2, 2), (2, 2, 32), (1, 4, 16, 16, 4), (3, 2, 64, 64)),
        every=2,
        tokens=24,
        quantization=affine(8, 64, mode=None),
    ),
}


# ---------------------------------------------------------------------------------------------------- random weights


def random_value(name, size, tied, generator):
    """A weight that is neither trivial nor wild: all layers, gates and decays matter in the output."""

    def normal(std, mean=0.0):
        return torch.randn(size, generator=generator) * std + mean

    width = math.sqrt(size[-1])
    if name.endswith("linear_attn.norm.weight"):
        return normal(0.25, 1.0)
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return normal(0.25, 0.3)  # stored minus one, as the next
    if name.endswith("norm.weight"):
        return normal(0.25)
    if name.endswith("A_log"):
        return torch.empty(size).uniform_(math.log(0.05), math.log(4.0), generator=generator)
    if name.endswith("dt_bias"):
        return normal(1.0, -1.0)
    if name.endswith("conv1d.weight"):
        return normal(0.5)
    if name.endswith("embed_tokens.weight"):
        return normal(0.2 if tied else 0.5)
    if name.endswith("lm_head.weight"):
        return normal(2.5 / width)
    if name.endswith(("mlp.gate.weight", "o_proj.weight", "out_proj.weight", "down_proj", "down_proj.weight")):
        return normal(1.5 / width)
    return normal(1.0 / width)


def random_values(sizes, tied, generator):
    """Values for the parameters of a model, in a fixed order; a tied head has none of its own."""
    names = [name for name in sorted(sizes) if not (tied and name == "lm_head.weight")]
    return {name: random_value(name, sizes[name], tied, generator) for name in names}


def parameter_sizes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


# ---------------------------------------------------------------------------------------------------- layouts


def per_expert_layout(name, value):
    """One tensor for each expert and projection, as the first checkpoints of the family have it."""
    if name.endswith("mlp.experts.gate_up_proj"):
        stem = name.removesuffix("gate_up_proj")
        for expert, both in enumerate(value):
            gate, up = both.chunk(2)
            yield f"{stem}{expert}.gate_proj.weight", gate
            yield f"{stem}{expert}.up_proj.weight", up
    elif name.endswith("mlp.experts.down_proj"):
        stem = name.removesuffix("down_proj")
        for expert, down in enumerate(value):
            yield f"{stem}{expert}.down_proj.weight", down
    else:
        yield name, value


def fused_layout(name, value):
    """The names of transformers: experts in gate_up_proj [E, 2I, H] and down_proj [E, H, I]."""
    yield name, value


def multimodal_layout(name, value):
    """The published layout: fused experts, the text model one level down."""
    text = name.startswith("model.") and not name.startswith("model.visual.")
    yield (name.replace("model.", "model.language_model.", 1) if text else name), value


def mlx_layout(name, value):
    """The layout of mlx-lm: stacked experts split in gate and up, norms shifted by one, conv1d as [C, K, 1]."""
    name = f"language_model.{name}"
    if name.endswith("mlp.experts.gate_up_proj"):
        stem = name.replace("experts.gate_up_proj", "switch_mlp.")
        gate, up = value.chunk(2, dim=1)
        yield f"{stem}gate_proj.weight", gate
        yield f"{stem}up_proj.weight", up
    elif name.endswith("mlp.experts.down_proj"):
        yield name.replace("experts.down_proj", "switch_mlp.down_proj.weight"), value
    elif name.endswith("conv1d.weight"):
        yield name, value.movedim(2, 1)
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        yield name, value + 1.0
    else:
        yield name, value


LAYOUTS = {
    "per_expert": per_expert_layout,
    "fused": fused_layout,
    "multimodal": multimodal_layout,
    "mlx": mlx_layout,
}


# ---------------------------------------------------------------------------------------------------- quantisation


def affine_codes(weight, bits, group_size):
    """MLX's choice of scales, biases and codes: the edge of larger magnitude is met exactly and so is zero, wherefore
    a scale is as often negative as positive. The codes come from the scales before these are rounded to BF16."""
    groups = weight.unflatten(-1, (-1, group_size))
    top, bottom = groups.amax(-1, keepdim=True).clamp(min=0), groups.amin(-1, keepdim=True)
    steps = 2**bits - 1
    scale = ((top - bottom) / steps).clamp(min=1e-7)
    from_below = bottom.abs() > top.abs()
    scale = torch.where(from_below, scale, -scale)
    edge = torch.where(from_below, bottom, top)
    origin = (edge / scale).round()
    scale = torch.where(origin == 0, scale, edge / origin)
    bias = torch.where(origin == 0, torch.zeros_like(edge), edge)
    codes = ((groups - bias) / scale).round().clamp(0, steps).to(torch.int64)
    return codes.flatten(-2), scale.squeeze(-1).bfloat16(), bias.squeeze(-1).bfloat16()


def pack(codes, bits):
    """[..., n] codes as [..., n * bits / 32] words: consecutive bits, the lowest ones of the first word first."""
    count = codes.shape[-1]
    words = torch.zeros(*codes.shape[:-1], count * bits // 32, dtype=torch.int64)
    for i in range(count):
        word, shift = divmod(i * bits, 32)
        value = codes[..., i] << shift
        words[..., word] |= value & 0xFFFFFFFF
        if shift + bits > 32:
            words[..., word + 1] |= value >> 32
    signed = words - ((words >> 31) << 32)
    return signed.to(torch.int32).view(torch.uint32)


def quantise(base, weight, bits, group_size):
    """The three stored tensors, and the values they stand for."""
    codes, scales, biases = affine_codes(weight, bits, group_size)
    stored = {f"{base}.weight": pack(codes, bits), f"{base}.scales": scales, f"{base}.biases": biases}
    groups = codes.unflatten(-1, (-1, group_size)).double()
    exact = groups * scales.double().unsqueeze(-1) + biases.double().unsqueeze(-1)
    return stored, exact.flatten(-2)


def settings_for(case, name, value):
    """Bits and group size for a tensor, None where it stays as it is."""
    base = name.removesuffix(".weight")
    matrix = name.endswith(".weight") and value.dim() >= 2 and not name.endswith("conv1d.weight")
    if case.quantization is None or not matrix or base in case.left_plain:
        return None
    settings = case.quantization.get(base, case.quantization)
    return settings and (settings["bits"], settings["group_size"])


def encode(case, values):
    """The tensors to store, and, name by name, the values they stand for."""
    stored, exact = {}, {}
    for hf_name, hf_value in values.items():
        for name, value in LAYOUTS[case.layout](hf_name, hf_value):
            if settings := settings_for(case, name, value):
                parts, exact[name] = quantise(name.removesuffix(".weight"), value, *settings)
                stored.update(parts)
            else:
                dtype = torch.float32 if name.endswith(case.keep_f32) else case.dtype
                stored[name] = value.to(dtype).clone(memory_format=torch.contiguous_format)
                exact[name] = stored[name].double()
    return stored, exact


# ---------------------------------------------------------------------------------------------------- writing


def text_config(case):
    return Qwen3_5MoeTextConfig(**json.loads(json.dumps(case.shape)))


def text_config_dict(case):
    config = json.loads(text_config(case).to_json_string())
    for key, value in case.config_extra.items():
        config[key] = value
    return {key: value for key, value in config.items() if not (key in case.config_extra and value is None)}


def multimodal_config(case):
    """A vision tower as small as it gets; nothing of it runs."""
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "patch_size": 2,
        "out_hidden_size": case.shape["hidden_size"],
        "num_position_embeddings": 16,
    }
    return Qwen3_5MoeConfig(
        text_config=json.loads(json.dumps(case.shape)),
        vision_config=vision,
        tie_word_embeddings=case.shape["tie_word_embeddings"],
    )


def config_dict(case):
    if case.layout == "multimodal":
        extra = {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "dtype": "bfloat16"}
        return json.loads(multimodal_config(case).to_json_string()) | extra
    if case.layout == "mlx":
        config = {
            "architectures": ["Qwen3_5MoeForConditionalGeneration"],
            "model_type": "qwen3_5_moe",
            "text_config": text_config_dict(case),
            "tie_word_embeddings": case.shape["tie_word_embeddings"],
        }
        tables = ("quantization", "quantization_config") if case.quantization else ()
        return config | {key: case.quantization for key in tables}
    dtype = str(case.dtype).removeprefix("torch.")
    return text_config_dict(case) | {"architectures": ["Qwen3_5MoeForCausalLM"], "dtype": dtype}


def foreign_values(case, generator):
    """What a published checkpoint holds besides the text model: a vision tower and a few tensors of an MTP layer."""
    if case.layout != "multimodal":
        return {}
    hidden, experts = case.shape["hidden_size"], case.shape["num_experts"]
    sizes = parameter_sizes(Qwen3_5MoeForConditionalGeneration(multimodal_config(case)))
    sizes = {name: size for name, size in sizes.items() if name.startswith("model.visual.")}
    sizes |= {
        "mtp.fc.weight": (hidden, 2 * hidden),
        "mtp.layers.0.input_layernorm.weight": (hidden,),
        "mtp.layers.0.mlp.gate.weight": (experts, hidden),
        "mtp.layers.0.mlp.shared_expert_gate.weight": (1, hidden),
        "mtp.layers.0.self_attn.k_norm.weight": (case.shape["head_dim"],),
        "mtp.norm.weight": (hidden,),
        "mtp.pre_fc_norm_embedding.weight": (hidden,),
        "mtp.pre_fc_norm_hidden.weight": (hidden,),
    }
    return random_values(sizes, False, generator)


def byte_size(tensor):
    return tensor.numel() * tensor.element_size()


def split(stored, count):
    """The tensors in `count` files of about the same size, in the order of their names."""
    total = sum(map(byte_size, stored.values()))
    shards, done = [{} for _ in range(count)], 0
    for name in sorted(stored):
        shards[min(done * count // total, count - 1)][name] = stored[name]
        done += byte_size(stored[name])
    return shards


def write_tensors(path, tensors, metadata):
    """A safetensors file. Its bytes follow from its contents (the safetensors package orders metadata at random)."""
    header, end = {"__metadata__": metadata}, 0
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        begin, end = end, end + byte_size(tensors[name])
        size = list(tensors[name].shape)
        header[name] = {"dtype": DTYPE_NAMES[tensors[name].dtype], "shape": size, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(tensors[name].flatten().view(torch.uint8).numpy().tobytes())


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_checkpoint(case, folder, stored):
    """config.json and the model file or files."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    write_json(folder / "config.json", config_dict(case))
    shards, names = split(stored, case.shards), ["model.safetensors"]
    if case.shards > 1:
        names = [f"model-{i + 1:05}-of-{case.shards:05}.safetensors" for i in range(case.shards)]
    for name, shard in zip(names, shards, strict=True):
        write_tensors(folder / name, shard, {"format": "mlx" if case.layout == "mlx" else "pt"})
    if case.shards > 1 and case.index:
        weight_map = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
        size = sum(map(byte_size, stored.values()))
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(folder / "model.safetensors.index.json", index)


def write_generation_config(case, folder, used):
    """Several end ids, none of which the reference meets, so that nothing ends early."""
    free = [i for i in range(case.shape["vocab_size"]) if i not in used][-3:]
    extra = {"eos_token_id": free, "transformers_version": transformers.__version__}
    write_json(folder / "generation_config.json", case.generation | extra)


# ---------------------------------------------------------------------------------------------------- reference


def eager_model(config):
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return Qwen3_5MoeForCausalLM(config).float().eval()


def load_values(model, checkpoint):
    """Fills a transformers model with what an independent reader finds in the folder."""
    state = {}
    for name in model.state_dict():
        state[name] = checkpoint.value(name).float()
        assert torch.equal(state[name].double(), checkpoint.value(name)), f"{name} is not exact in fp32"
    model.load_state_dict(state, strict=True)


@torch.no_grad()
def run(model, ids):
    return model(input_ids=ids[None], use_cache=False, output_hidden_states=True, output_router_logits=True)


def router_gap(output, top_k):
    """The smallest distance of a router logit that was chosen from the best that was not."""
    best = torch.cat(output.router_logits).topk(top_k + 1, dim=-1).values
    return (best[:, top_k - 1] - best[:, top_k]).min().item()


def continue_greedily(model, prompt):
    """The continuation, and the smallest margin between the two best logits of a step."""
    ids, margin = prompt, math.inf
    for _ in range(GREEDY_STEPS):
        best = run(model, ids).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat([ids, best.indices[:1]])
    return ids[len(prompt) :], margin


@dataclass
class Reference:
    tensors: dict
    margin: float
    gap: float
    logits_std: float

    def acceptable(self):
        ties = self.margin < LEAST_MARGIN or self.gap < LEAST_ROUTER_GAP
        dull = len(self.tensors["greedy"].unique()) < LEAST_VARIETY
        return not ties and not dull and LOGITS_STD[0] < self.logits_std < LOGITS_STD[1]


def make_reference(case, model, ids):
    output = run(model, ids)
    hidden = [state[0] for state in output.hidden_states]
    assert len(hidden) == case.shape["num_hidden_layers"] + 1
    greedy, margin = continue_greedily(model, ids[: case.prompt_len])
    again = run(model, torch.cat([ids[: case.prompt_len], greedy]))
    gap = min(router_gap(o, case.shape["num_experts_per_tok"]) for o in (output, again))
    tensors = {f"hidden.{i}": state for i, state in enumerate(hidden)}
    tensors |= {"input_ids": ids, "logits": output.logits[0], "greedy": greedy}
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    return Reference(tensors, margin, gap, output.logits.std().item())


def save_reference(case, folder, reference):
    metadata = {
        "dtype": "float32",
        "min_greedy_margin": f"{reference.margin:.5f}",
        "prompt_len": str(case.prompt_len),
        "transformers": transformers.__version__,
    }
    write_tensors(folder / "reference.safetensors", reference.tensors, metadata)


# ---------------------------------------------------------------------------------------------------- checks


def check_stored_values(folder, values, exact):
    """What the independent reader decodes is, bit for bit, what was meant; and no tensor is another one's."""
    checkpoint = Checkpoint(folder)
    for name, expected in exact.items():
        assert torch.equal(checkpoint.decode(name), expected), f"{name} reads back differently"
    for name, original in values.items():
        close = cosine_similarity(checkpoint.value(name).flatten(), original.double().flatten(), dim=0)
        assert close > 0.85, f"{name} has little to do with what it was made from"
    return checkpoint


@torch.no_grad()
def cached_difference(model, reference, prompt_len):
    """How far the logits move when transformers decodes token by token with its cache: its own rounding.

    None without any full attention: such a cache does not know its length, and transformers refuses it.
    """
    if FULL not in model.config.layer_types:
        return None
    ids, logits = reference.tensors["input_ids"][None], []
    output = model(input_ids=ids[:, :prompt_len], use_cache=True)
    logits.append(output.logits[0])
    for t in range(prompt_len, ids.shape[1]):
        output = model(input_ids=ids[:, t : t + 1], past_key_values=output.past_key_values, use_cache=True)
        logits.append(output.logits[0])
    return (torch.cat(logits) - reference.tensors["logits"]).abs().max().item()


def loaded_difference(case, folder, reference):
    """How far the logits move when transformers itself loads the folder; None where it does not know the layout."""
    if case.layout == "mlx" or (case.shards > 1 and not case.index):
        return None
    kind = Qwen3_5MoeForConditionalGeneration if case.layout == "multimodal" else Qwen3_5MoeForCausalLM
    options = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = kind.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        logits = model(input_ids=reference.tensors["input_ids"][None], use_cache=False).logits[0]
    return (logits - reference.tensors["logits"]).abs().max().item()


def check_case(case, folder, model, reference):
    """Reloads the folder in every way there is, and says how far each is from the reference."""
    hidden, logits = compare(folder)
    differences = {
        "plain_hidden": hidden,
        "plain_logits": logits,
        "cached": cached_difference(model, reference, case.prompt_len),
        "loaded": loaded_difference(case, folder, reference),
    }
    assert max(hidden, logits, differences["cached"] or 0.0) < 5e-4, differences
    assert (differences["loaded"] or 0.0) < 1e-5, differences
    return differences


# ---------------------------------------------------------------------------------------------------- main


def make_candidate(case, folder, seed):
    """The case with the weights of one seed, written and run."""
    generator = torch.Generator().manual_seed(seed)
    model = eager_model(text_config(case))
    values = random_values(parameter_sizes(model), case.shape["tie_word_embeddings"], generator)
    stored, exact = encode(case, values)
    foreign, _ = encode(case, foreign_values(case, generator))
    write_checkpoint(case, folder, stored | foreign)
    load_values(model, check_stored_values(folder, values, exact))
    ids = torch.randint(case.shape["vocab_size"], (case.tokens,), generator=generator)
    return model, make_reference(case, model, ids)


def make_case(name, case, folder):
    """Writes a case with the first seed that will do; returns a line about it."""
    first = 1000 * (1 + list(CASES).index(name))
    for seed in range(first, first + MOST_SEEDS):
        model, reference = make_candidate(case, folder, seed)
        if reference.acceptable():
            break
    else:
        raise RuntimeError(f"{name}: no seed will do")
    save_reference(case, folder, reference)
    if case.generation:
        used = torch.cat([reference.tensors["input_ids"], reference.tensors["greedy"]])
        write_generation_config(case, folder, set(used.tolist()))
    differences = check_case(case, folder, model, reference)
    return {
        "case": name,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "seed": seed,
        "margin": reference.margin,
        "router_gap": reference.gap,
        "logits_std": reference.logits_std,
        "greedy_ids": len(reference.tensors["greedy"].unique()),
        **differences,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all of them if none is named: {' '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the folders go")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {' '.join(sorted(unknown))}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in arguments.cases or CASES:
        result = make_case(name, CASES[name], arguments.out / name)
        print(" ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in result.items()), flush=True)


if __name__ == "__main__":
    main()

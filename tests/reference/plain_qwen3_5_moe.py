"""An independent reading of a Qwen3.5-MoE text checkpoint: plain torch in float64, one token after the other.

It shares no code with transformers, with the safetensors package or with make_qwen3_5_moe.py. The generator uses it to
check that a written folder means what its reference says; it also is the shortest statement of the arithmetic.

    python3 plain_qwen3_5_moe.py FOLDER...      compares each folder with the reference.safetensors it holds
"""

import json
import struct
import sys
from pathlib import Path

import torch
from torch.nn.functional import silu, softplus

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "U32": torch.int32,  # the bits only: read_codes() takes them as bytes
}


# ---------------------------------------------------------------------------------------------------- reading


def read_safetensors(path):
    """The tensors of one file, and its metadata."""
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        data = torch.frombuffer(bytearray(raw[8 + size + begin : 8 + size + end]), dtype=torch.uint8)
        tensors[name] = data.view(DTYPES[info["dtype"]]).reshape(info["shape"])
    return tensors, metadata


def read_codes(row, bits, count):
    """The first `count` codes of a packed row: a little-endian stream of bits, lowest first, for every width."""
    stream = int.from_bytes(bytes(row), "little")
    return [(stream >> (bits * i)) & ((1 << bits) - 1) for i in range(count)]


def dequantise(weight, scales, biases, bits, group_size):
    """MLX's affine format: code * scale + bias, one scale and one bias to each group along the last dimension."""
    count = weight.shape[-1] * 32 // bits
    if scales.shape[-1] * group_size != count:
        raise ValueError(f"{scales.shape[-1]} groups of {group_size} do not hold {count} values")
    rows = weight.reshape(-1, weight.shape[-1]).contiguous().view(torch.uint8).tolist()
    codes = torch.tensor([read_codes(row, bits, count) for row in rows], dtype=torch.float64)
    scales, biases = (t.double().reshape(len(rows), -1).repeat_interleave(group_size, dim=1) for t in (scales, biases))
    return (codes * scales + biases).reshape(*weight.shape[:-1], count)


def text_name(name):
    """A stored name without the prefixes of the layouts; None for what is no part of the text model."""
    if name.startswith(("model.visual.", "mtp.")):
        return None
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "model.", 1)
    return name.removeprefix("language_model.")


class Checkpoint:
    """A folder, its tensors under the names that transformers gives them, as float64."""

    def __init__(self, folder):
        folder = Path(folder)
        self.config = json.loads((folder / "config.json").read_text())
        self.text = self.config.get("text_config", self.config)
        self.stored = {}
        for file in sorted(folder.glob("model*.safetensors")):
            self.stored.update(read_safetensors(file)[0])
        self.is_mlx = any(name.startswith("language_model.") for name in self.stored)
        self.decoded = {}
        self.names = {text_name(name): name for name in self.stored if text_name(name)}

    def decode(self, stored_name):
        """One stored tensor as float64, dequantised where it has scales."""
        if stored_name not in self.decoded:
            self.decoded[stored_name] = self._decode(stored_name)
        return self.decoded[stored_name]

    def _decode(self, stored_name):
        tensor = self.stored[stored_name]
        base = stored_name.removesuffix(".weight")
        table = self.config.get("quantization") or {}
        settings = table.get(base, table)
        if base + ".scales" not in self.stored:
            return tensor.double()
        scales, biases = self.stored[base + ".scales"], self.stored[base + ".biases"]
        return dequantise(tensor, scales, biases, settings["bits"], settings["group_size"])

    def raw(self, name):
        return self.decode(self.names[name])

    def norm(self, name):
        """The factor of an RMSNorm. MLX stores it, transformers stores it minus one (but not for the gated norm)."""
        shifted = self.is_mlx or name.endswith("linear_attn.norm.weight")
        return self.raw(name) if shifted else self.raw(name) + 1.0

    def conv(self, name):
        """The [channels, kernel] taps, the last one for the current token."""
        return self.raw(name).squeeze(2 if self.is_mlx else 1)

    def head(self):
        return self.raw("lm_head.weight" if "lm_head.weight" in self.names else "model.embed_tokens.weight")

    def experts(self, layer):
        """gate_up_proj [E, 2I, H] and down_proj [E, H, I], whichever way they are stored."""
        stem = f"model.layers.{layer}.mlp."
        if stem + "experts.gate_up_proj" in self.names:
            return self.raw(stem + "experts.gate_up_proj"), self.raw(stem + "experts.down_proj")
        if stem + "switch_mlp.down_proj.weight" in self.names:
            gate, up, down = (self.raw(f"{stem}switch_mlp.{part}_proj.weight") for part in ("gate", "up", "down"))
        else:
            gate, up, down = (self._stack(stem, part) for part in ("gate", "up", "down"))
        return torch.cat([gate, up], dim=1), down

    def _stack(self, stem, part):
        count = self.text["num_experts"]
        return torch.stack([self.raw(f"{stem}experts.{e}.{part}_proj.weight") for e in range(count)])

    def value(self, name):
        """The parameter that transformers knows under this name, as it wants to have it."""
        if name == "lm_head.weight":
            return self.head()
        if name.endswith((".experts.gate_up_proj", ".experts.down_proj")):
            return self.experts(int(name.split(".")[2]))[name.endswith("down_proj")]
        if name.endswith("conv1d.weight"):
            return self.conv(name).unsqueeze(1)
        if name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            return self.norm(name) - 1.0
        return self.raw(name)


# ---------------------------------------------------------------------------------------------------- arithmetic


def rms_norm(x, factor, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * factor


def l2_norm(x):
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def rotate(x, theta, rotary_dim):
    """Rotary embedding of x [T, heads, dim]: pairs (i, i + rotary_dim / 2); what follows rotary_dim stays as it is."""
    half = rotary_dim // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(x.shape[0], dtype=torch.float64)[:, None] * frequency)[:, None, :]
    a, b = x[..., :half], x[..., half:rotary_dim]
    turned = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
    return torch.cat([*turned, x[..., rotary_dim:]], dim=-1)


def causal_conv(x, taps):
    """Depthwise: y[t] = sum over j of taps[j] * x[t - (kernel - 1) + j], zeros before the first token."""
    kernel = taps.shape[1]
    padded = torch.cat([x.new_zeros(kernel - 1, x.shape[1]), x])
    return sum(padded[j : j + x.shape[0]] * taps[:, j] for j in range(kernel))


def delta_rule(q, k, v, decay, beta):
    """The recurrence of the gated delta rule; q, k [T, heads, kd], v [T, heads, vd], decay and beta [T, heads]."""
    state = v.new_zeros(v.shape[1], k.shape[2], v.shape[2])
    out = []
    for t in range(v.shape[0]):
        state = state * decay[t, :, None, None]
        error = v[t] - torch.einsum("hkv,hk->hv", state, k[t])
        state = state + torch.einsum("hk,hv->hkv", k[t], error * beta[t, :, None])
        out.append(torch.einsum("hkv,hk->hv", state, q[t]))
    return torch.stack(out)


class PlainModel:
    """The forward pass over a whole sequence."""

    def __init__(self, folder):
        self.checkpoint = Checkpoint(folder)
        self.text = self.checkpoint.text
        self.eps = self.text["rms_norm_eps"]
        count, every = self.text["num_hidden_layers"], self.text.get("full_attention_interval", 4)
        default = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(count)]
        self.layer_types = self.text.get("layer_types") or default

    def weight(self, layer, name):
        return self.checkpoint.raw(f"model.layers.{layer}.{name}.weight")

    def norm(self, layer, name, x):
        return rms_norm(x, self.checkpoint.norm(f"model.layers.{layer}.{name}.weight"), self.eps)

    def attention(self, layer, x):
        tokens, dim, rope = x.shape[0], self.text["head_dim"], self.text["rope_parameters"]
        groups = self.text["num_attention_heads"] // self.text["num_key_value_heads"]
        rotary_dim = int(dim * rope["partial_rotary_factor"])
        # Head by head, q_proj gives first the query and then the output gate.
        q, gate = (x @ self.weight(layer, "self_attn.q_proj").T).view(tokens, -1, 2 * dim).chunk(2, dim=-1)
        k = (x @ self.weight(layer, "self_attn.k_proj").T).view(tokens, -1, dim)
        v = (x @ self.weight(layer, "self_attn.v_proj").T).view(tokens, -1, dim)
        q = rotate(self.norm(layer, "self_attn.q_norm", q), rope["rope_theta"], rotary_dim)
        k = rotate(self.norm(layer, "self_attn.k_norm", k), rope["rope_theta"], rotary_dim)
        k, v = (t.repeat_interleave(groups, dim=1) for t in (k, v))
        scores = torch.einsum("thd,shd->hts", q, k) * dim**-0.5
        scores += torch.full((tokens, tokens), float("-inf"), dtype=torch.float64).triu(1)
        out = torch.einsum("hts,shd->thd", scores.softmax(-1), v) * gate.sigmoid()
        return out.reshape(tokens, -1) @ self.weight(layer, "self_attn.o_proj").T

    def delta_net(self, layer, x):
        text, tokens = self.text, x.shape[0]
        key_heads, value_heads = text["linear_num_key_heads"], text["linear_num_value_heads"]
        key_dim = key_heads * text["linear_key_head_dim"]
        stem = f"model.layers.{layer}.linear_attn."
        taps = self.checkpoint.conv(stem + "conv1d.weight")
        mixed = silu(causal_conv(x @ self.weight(layer, "linear_attn.in_proj_qkv").T, taps))
        q, k, v = mixed.split([key_dim, key_dim, mixed.shape[1] - 2 * key_dim], dim=-1)
        q, k = (l2_norm(t.reshape(tokens, key_heads, -1)) for t in (q, k))
        # Each key head serves value_heads / key_heads consecutive value heads.
        q, k = (t.repeat_interleave(value_heads // key_heads, dim=1) for t in (q, k))
        v = v.reshape(tokens, value_heads, -1)
        beta = (x @ self.weight(layer, "linear_attn.in_proj_b").T).sigmoid()
        step = softplus(x @ self.weight(layer, "linear_attn.in_proj_a").T + self.checkpoint.raw(stem + "dt_bias"))
        decay = (-self.checkpoint.raw(stem + "A_log").exp() * step).exp()
        out = delta_rule(q * q.shape[-1] ** -0.5, k, v, decay, beta)
        z = (x @ self.weight(layer, "linear_attn.in_proj_z").T).view_as(out)
        out = self.norm(layer, "linear_attn.norm", out) * silu(z)
        return out.reshape(tokens, -1) @ self.weight(layer, "linear_attn.out_proj").T

    def experts(self, layer, x):
        """The mixture: softmax over all experts, the largest k of them rescaled to sum 1; and the gated shared one."""
        chance = (x @ self.weight(layer, "mlp.gate").T).softmax(-1)
        share, chosen = chance.topk(self.text["num_experts_per_tok"], dim=-1)
        share = share / share.sum(-1, keepdim=True)
        gate_up, down = self.checkpoint.experts(layer)
        out = torch.zeros_like(x)
        for t in range(x.shape[0]):
            for weight, expert in zip(share[t], chosen[t]):
                gate, up = (gate_up[expert] @ x[t]).chunk(2)
                out[t] += weight * (down[expert] @ (silu(gate) * up))
        return out + self.shared_expert(layer, x)

    def shared_expert(self, layer, x):
        gate, up, down = (self.weight(layer, f"mlp.shared_expert.{part}_proj").T for part in ("gate", "up", "down"))
        return (x @ self.weight(layer, "mlp.shared_expert_gate").T).sigmoid() * ((silu(x @ gate) * (x @ up)) @ down)

    def __call__(self, ids):
        """The hidden states as output_hidden_states gives them, and the logits."""
        x = self.checkpoint.raw("model.embed_tokens.weight")[ids]
        hidden = [x]
        for layer, kind in enumerate(self.layer_types):
            mixer = self.attention if kind == "full_attention" else self.delta_net
            x = x + mixer(layer, self.norm(layer, "input_layernorm", x))
            x = x + self.experts(layer, self.norm(layer, "post_attention_layernorm", x))
            hidden.append(x)
        hidden[-1] = rms_norm(x, self.checkpoint.norm("model.norm.weight"), self.eps)
        return hidden, hidden[-1] @ self.checkpoint.head().T


def compare(folder):
    """The largest differences from the folder's reference: of a hidden state, of a logit."""
    reference, _ = read_safetensors(Path(folder) / "reference.safetensors")
    hidden, logits = PlainModel(folder)(reference["input_ids"])
    states = [(state - reference[f"hidden.{i}"].double()).abs().max().item() for i, state in enumerate(hidden)]
    return max(states), (logits - reference["logits"].double()).abs().max().item()


def main():
    for folder in sys.argv[1:]:
        print("{}: hidden states differ by {:.2e}, logits by {:.2e}".format(folder, *compare(folder)))


if __name__ == "__main__":
    main()

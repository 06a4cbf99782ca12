"""Writes tiny random checkpoints of the other families, each with the outputs transformers computes for it.

    python3 make_families.py [--out FOLDER] [CASE...]

Needs PyTorch and transformers; no accelerator, no network. README.md beside this file lists the cases.

Weights are drawn from a seed and rounded to BF16, so that they are exact in fp32; save_pretrained writes them in the
layout that the family is published in. The reference is what transformers computes from these values in fp32: eager
attention, no cache. A seed is taken only when nothing in its outputs hangs on rounding: the two best logits of every
greedy step are apart, and weights that are off by a millionth move no logit by more than 1e-3.
"""

import argparse
import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from make_qwen3_5_moe import GREEDY_STEPS, LEAST_MARGIN, LEAST_VARIETY, write_tensors

MOST_SEEDS = 100
LOGITS_STD = (0.5, 8.0)
MOST_DRIFT = 1e-3  # of logits
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"


@dataclass(frozen=True)
class Case:
    """One checkpoint: family is the prefix of the classes in transformers."""

    family: str
    config: dict
    tokens: int = 40
    prompt_len: int = 8


def attention(heads, kv_heads, head_dim):
    return {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}


def yarn(factor, original, **more):
    return {
        "rope_type": "yarn",
        "rope_theta": more.pop("theta", 10000.0),
        "factor": factor,
        "original_max_position_embeddings": original,
        **more,
    }


def plain_rope(theta=10000.0, **more):
    return {"rope_type": "default", "rope_theta": theta, **more}


def latent(q_rank, kv_rank, nope, rope, value):
    return {
        "q_lora_rank": q_rank,
        "kv_lora_rank": kv_rank,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": value,
    }


def delta(k_heads, v_heads, dk, dv, width):
    return {
        "linear_num_key_heads": k_heads,
        "linear_num_value_heads": v_heads,
        "linear_key_head_dim": dk,
        "linear_value_head_dim": dv,
        "linear_conv_kernel_dim": width,
    }


CASES = {
    "qwen3_moe-dense-tied": Case(
        "Qwen3Moe",
        attention(3, 1, 24)
        | {
            "hidden_size": 56,
            "num_hidden_layers": 4,
            "intermediate_size": 40,
            "moe_intermediate_size": 20,
            "num_experts": 5,
            "num_experts_per_tok": 3,
            "norm_topk_prob": False,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "tie_word_embeddings": True,
            "rope_parameters": plain_rope(1e6),
        },
    ),
    "qwen3_moe-yarn": Case(
        "Qwen3Moe",
        attention(4, 2, 20)
        | {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "moe_intermediate_size": 24,
            "num_experts": 7,
            "num_experts_per_tok": 1,
            "norm_topk_prob": True,
            "attention_bias": True,
            "mlp_only_layers": [],
            "rope_parameters": yarn(4.0, 16, theta=1e5),
        },
        tokens=72,
    ),
    "qwen3_next-interval": Case(
        "Qwen3Next",
        attention(3, 1, 24)
        | delta(3, 6, 16, 24, 3)
        | {
            "hidden_size": 56,
            "layer_types": [LINEAR, FULL, LINEAR],
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 28,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "norm_topk_prob": False,
            "partial_rotary_factor": 0.5,
            "rope_parameters": plain_rope(partial_rotary_factor=0.5),
            "tie_word_embeddings": True,
        },
        tokens=80,
    ),
    "qwen3_next-dense": Case(
        "Qwen3Next",
        attention(2, 2, 32)
        | delta(2, 2, 24, 16, 4)
        | {
            "hidden_size": 48,
            "layer_types": [FULL, LINEAR, FULL],
            "intermediate_size": 36,
            "mlp_only_layers": [1],
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 20,
            "num_experts": 9,
            "num_experts_per_tok": 4,
            "norm_topk_prob": True,
            "partial_rotary_factor": 0.25,
            "rope_parameters": plain_rope(1e6, partial_rotary_factor=0.25),
        },
    ),
    "mixtral": Case(
        "Mixtral",
        attention(4, 2, 12)
        | {
            "hidden_size": 52,
            "num_hidden_layers": 2,
            "intermediate_size": 28,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": None,
            "rope_parameters": plain_rope(1e6),
        },
    ),
    "mixtral-window": Case(
        "Mixtral",
        attention(3, 3, 16)
        | {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "intermediate_size": 24,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "sliding_window": 9,
            "tie_word_embeddings": True,
            "rope_parameters": plain_rope(),
        },
        tokens=90,
    ),
    "olmoe": Case(
        "Olmoe",
        {
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "hidden_size": 60,
            "num_hidden_layers": 2,
            "intermediate_size": 20,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "norm_topk_prob": False,
            "rope_parameters": plain_rope(),
        },
    ),
    "olmoe-grouped": Case(
        "Olmoe",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "intermediate_size": 18,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "tie_word_embeddings": True,
            "rope_parameters": plain_rope(5e5),
        },
    ),
    "glm4_moe-groups": Case(
        "Glm4Moe",
        attention(3, 1, 24)
        | {
            "hidden_size": 56,
            "num_hidden_layers": 3,
            "intermediate_size": 44,
            "moe_intermediate_size": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "n_shared_experts": 2,
            "n_group": 4,
            "topk_group": 2,
            "first_k_dense_replace": 2,
            "norm_topk_prob": False,
            "routed_scaling_factor": 2.0,
            "use_qk_norm": False,
            "attention_bias": False,
            "partial_rotary_factor": 0.5,
            "rope_parameters": plain_rope(partial_rotary_factor=0.5),
            "tie_word_embeddings": True,
        },
    ),
    "glm4_moe-no-dense": Case(
        "Glm4Moe",
        attention(4, 4, 16)
        | {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "moe_intermediate_size": 20,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 0,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "use_qk_norm": True,
            "attention_bias": True,
            "partial_rotary_factor": 1.0,
            "rope_parameters": plain_rope(1e6, partial_rotary_factor=1.0),
        },
    ),
    "minimax_m2": Case(
        "MiniMaxM2",
        attention(4, 2, 24)
        | {
            "hidden_size": 56,
            "num_hidden_layers": 2,
            "intermediate_size": 20,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "rotary_dim": 12,
            "partial_rotary_factor": 0.5,
            "rope_parameters": plain_rope(5e6, partial_rotary_factor=0.5),
        },
    ),
    "minimax_m2-tied": Case(
        "MiniMaxM2",
        attention(3, 1, 20)
        | {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "intermediate_size": 28,
            "num_local_experts": 7,
            "num_experts_per_tok": 3,
            "rotary_dim": 20,
            "partial_rotary_factor": 1.0,
            "rope_parameters": plain_rope(partial_rotary_factor=1.0),
            "tie_word_embeddings": True,
        },
    ),
    "deepseek_v3-no-lora": Case(
        "DeepseekV3",
        latent(None, 40, 24, 8, 20)
        | {
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "hidden_size": 56,
            "num_hidden_layers": 2,
            "intermediate_size": 36,
            "moe_intermediate_size": 16,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "n_shared_experts": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 0,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.5,
            "rope_parameters": plain_rope(5e4),
            "tie_word_embeddings": True,
        },
        tokens=70,
    ),
    "deepseek_v3-groups": Case(
        "DeepseekV3",
        latent(28, 24, 16, 12, 24)
        | {
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "hidden_size": 48,
            "num_hidden_layers": 4,
            "intermediate_size": 40,
            "moe_intermediate_size": 12,
            "n_routed_experts": 12,
            "num_experts_per_tok": 3,
            "n_shared_experts": 1,
            "n_group": 3,
            "topk_group": 2,
            "first_k_dense_replace": 2,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "rope_parameters": yarn(4.0, 16, mscale=1.0, mscale_all_dim=0.7, beta_fast=32.0, beta_slow=1.0),
        },
        tokens=80,
    ),
    "deepseek_v3-halves": Case(
        "DeepseekV3",
        latent(32, 16, 12, 8, 12)
        | {
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "hidden_size": 40,
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "rope_interleave": False,
            "rope_parameters": plain_rope(),
        },
    ),
    "gpt_oss-tied": Case(
        "GptOss",
        attention(3, 1, 24)
        | {
            "hidden_size": 56,
            "layer_types": [FULL, SLIDING, FULL],
            "sliding_window": 5,
            "intermediate_size": 20,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "rope_parameters": plain_rope(1.5e5),
            "tie_word_embeddings": True,
        },
    ),
    "gpt_oss-window": Case(
        "GptOss",
        attention(4, 2, 16)
        | {
            "hidden_size": 48,
            "layer_types": [SLIDING, FULL],
            "sliding_window": 70,
            "intermediate_size": 28,
            "num_local_experts": 5,
            "num_experts_per_tok": 4,
            "rope_parameters": yarn(4.0, 32, theta=1.5e5, beta_fast=32.0, beta_slow=1.0, truncate=False),
        },
        tokens=150,
    ),
}

# ---------------------------------------------------------------------------------------------------- models


def config_of(case):
    base = {
        "vocab_size": 160,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "attention_dropout": 0.0,
        "use_cache": True,
    }
    layers = {"num_hidden_layers": len(case.config["layer_types"])} if "layer_types" in case.config else {}
    config = getattr(transformers, f"{case.family}Config")(**(base | layers | case.config))
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


def random_value(name, size, case, generator):
    """A weight that is neither trivial nor wild; the rules go by the end of the name."""

    def normal(std, mean=0.0):
        return torch.randn(size, generator=generator) * std + mean

    # GPT-OSS stores experts as inputs by outputs.
    fan_in = size[-2] if case.family == "GptOss" and name.endswith(("experts.gate_up_proj", "experts.down_proj")) else size[-1]
    width = math.sqrt(fan_in)
    shifted = case.family == "Qwen3Next" and not name.endswith("linear_attn.norm.weight")
    if name.endswith("e_score_correction_bias"):
        return normal(0.3)
    if name.endswith("A_log"):
        return torch.empty(size).uniform_(math.log(0.05), math.log(4.0), generator=generator)
    if name.endswith("dt_bias"):
        return normal(1.0, -1.0)
    if name.endswith("sinks"):
        return normal(1.0, 0.5)
    if name.endswith(("bias", "_bias")):
        return normal(0.3)
    if name.endswith("norm.weight") or "layernorm" in name:
        return normal(0.25, 0.0 if shifted else 1.0)
    if name.endswith("conv1d.weight"):
        return normal(0.5)
    if name.endswith("embed_tokens.weight"):
        return normal(0.3 if case.config.get("tie_word_embeddings") else 0.6)
    if name.endswith("lm_head.weight"):
        return normal(2.5 / width)
    if name.endswith(("gate.weight", "router.weight", "o_proj.weight", "out_proj.weight", "down_proj", "down_proj.weight")):
        return normal(1.5 / width)
    return normal(1.2 / width)


def make_model(case, seed):
    """A model in fp32 whose parameters are exact in BF16."""
    generator = torch.Generator().manual_seed(seed)
    model = getattr(transformers, f"{case.family}ForCausalLM")(config_of(case)).float().eval()
    tied = model.config.tie_word_embeddings
    state = model.state_dict()
    for name in sorted(state):
        if tied and name == "lm_head.weight":
            continue
        state[name].copy_(random_value(name, tuple(state[name].shape), case, generator).bfloat16().float())
    model.tie_weights()
    return model, torch.randint(case_vocab(model), (case.tokens,), generator=generator)


def case_vocab(model):
    return model.config.vocab_size


@torch.no_grad()
def run(model, ids):
    return model(input_ids=ids[None], use_cache=False, output_hidden_states=True)


def continue_greedily(model, prompt):
    ids, margin = prompt, math.inf
    for _ in range(GREEDY_STEPS):
        best = run(model, ids).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids = torch.cat([ids, best.indices[:1]])
    return ids, margin


@torch.no_grad()
def drift(model, ids, logits):
    """How far logits move with weights off by a millionth."""
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    for value in moved.parameters():
        value.mul_(1 + 1e-6 * torch.randn(value.shape, generator=generator))
    return (run(moved, ids).logits[0] - logits).abs().max().item()


def make_case(name, case, folder):
    first = 1000 * (1 + list(CASES).index(name))
    for seed in range(first, first + MOST_SEEDS):
        model, ids = make_model(case, seed)
        output = run(model, ids)
        logits = output.logits[0]
        if not LOGITS_STD[0] < logits.std().item() < LOGITS_STD[1]:
            continue
        whole, margin = continue_greedily(model, ids[: case.prompt_len])
        greedy = whole[case.prompt_len :]
        if margin < LEAST_MARGIN or len(greedy.unique()) < LEAST_VARIETY:
            continue
        off = max(drift(model, ids, logits), drift(model, whole, run(model, whole).logits[0]))
        if off < MOST_DRIFT:
            break
    else:
        raise RuntimeError(f"{name}: no seed will do")
    hidden = {f"hidden.{i}": h[0] for i, h in enumerate(output.hidden_states)}
    assert len(hidden) == model.config.num_hidden_layers + 1
    tensors = hidden | {"input_ids": ids, "logits": logits, "greedy": greedy}
    tensors = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).bfloat16().save_pretrained(folder)
    metadata = {
        "dtype": "float32",
        "min_greedy_margin": f"{margin:.5f}",
        "prompt_len": str(case.prompt_len),
        "transformers": transformers.__version__,
    }
    write_tensors(folder / "reference.safetensors", tensors, metadata)
    kind = type(model)
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    again = kind.from_pretrained(folder, dtype=torch.float32, **eager).eval()
    loaded = (run(again, ids).logits[0] - logits).abs().max().item()
    assert loaded < 1e-4, f"{name}: the saved model gives other logits, by {loaded}"
    return {
        "case": name,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "seed": seed,
        "margin": margin,
        "drift": off,
        "loaded": loaded,
        "logits_std": logits.std().item(),
        "greedy_ids": len(greedy.unique()),
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
    failed = []
    for name in arguments.cases or CASES:
        try:
            result = make_case(name, CASES[name], arguments.out / name)
        except Exception as error:
            failed.append(name)
            print(f"case={name} failed: {type(error).__name__}: {error}", flush=True)
            continue
        print(" ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in result.items()), flush=True)
    if failed:
        raise SystemExit(f"failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()

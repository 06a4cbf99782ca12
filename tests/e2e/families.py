"""Every family from a config alone: synthetic checkpoints run, streamed as resident, guessed or not."""
import json
import math

import harness

IDS = [(7 * i * i + 3 * i) % 96 for i in range(20)]

COMMON = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
          "head_dim": 32, "vocab_size": 96, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
          "num_experts_per_tok": 3, "tie_word_embeddings": False, "hidden_act": "silu"}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
         "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
         "layer_types": ["linear_attention", "full_attention", "linear_attention"]}
SHARED = {"shared_expert_intermediate_size": 64}
# 16 experts a layer; the number of layers that have them
FAMILIES = {
    "qwen3_5_moe_text": (3, DELTA | SHARED | {"num_experts": 16, "moe_intermediate_size": 32}),
    "qwen3_next": (2, DELTA | SHARED | {
        "num_experts": 16, "moe_intermediate_size": 32, "mlp_only_layers": [1],
        "intermediate_size": 96, "attention_bias": True}),
    "qwen3_moe": (2, {
        "num_local_experts": 16, "moe_intermediate_size": 32, "mlp_only_layers": [0],
        "intermediate_size": 128, "norm_topk_prob": True}),
    "glm4_moe": (2, {
        "n_routed_experts": 16, "moe_intermediate_size": 32, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "intermediate_size": 96, "n_group": 4, "topk_group": 2,
        "routed_scaling_factor": 1.5, "use_qk_norm": True, "attention_bias": True}),
    "deepseek_v3": (2, {
        "n_routed_experts": 16, "moe_intermediate_size": 32, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "intermediate_size": 96, "n_group": 4, "topk_group": 2,
        "routed_scaling_factor": 1.5, "q_lora_rank": 32, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16, "v_head_dim": 32}),
    "kimi_k2": (2, {
        "n_routed_experts": 16, "moe_intermediate_size": 32, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "intermediate_size": 96, "n_group": 1, "topk_group": 1,
        "routed_scaling_factor": 2.827, "q_lora_rank": 32, "kv_lora_rank": 32,
        "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32}),
    "gpt_oss": (3, {"num_local_experts": 16, "intermediate_size": 32, "sliding_window": 6}),
    "mixtral": (3, {"num_local_experts": 16, "intermediate_size": 64, "sliding_window": 6}),
    "olmoe": (3, {"num_experts": 16, "intermediate_size": 32, "head_dim": None,
                  "tie_word_embeddings": True}),
    "minimax_m2": (3, {"num_local_experts": 16, "intermediate_size": 32, "rotary_dim": 16}),
}


def make(sluice, folder, family, layout):
    shape = folder / "shape.json"
    shape.write_text(json.dumps(COMMON | {"model_type": family} | FAMILIES[family][1]))
    model = folder / layout
    made = sluice.run("synth", model, "--like", shape, "--layout", layout, "--group", 32)
    if made.code or "wrote" not in made.err:
        raise AssertionError(repr(made))
    return model


def layouts_of(family):
    """Instrumented, a layout of a family takes most of a minute."""
    own = ("mxfp4",) if family == "gpt_oss" else ()
    return own + (("mlx", "bf16") if harness.SLOW else () if own else ("mlx",))


# Whose routers have biases, and are not asked before their time.
UNGUESSED = ("gpt_oss",)


def check_streamed(tap, sluice, model, name, banks):
    """With a quarter of the experts in memory, and with each way of guessing, not a bit differs."""
    for precision in ("exact",) if "bf16" in name else ("exact", "fast"):
        with tap.case(f"{name}: {precision}: streamed as resident") as complaints:
            with harness.temporary_folder() as folder:
                common = (model, IDS, folder, "--precision", precision)
                whole = sluice.logits(*common, "--io", "mmap").read_bytes()
                slots = ("--slots", banks * 16 // 4)
                ways = [("--io", "pread", "--chunk", 1), ("--prefetch", "last", "--chunk", 7)]
                if not name.startswith(UNGUESSED):
                    ways.append(("--prefetch", "router"))
                for options in ways:
                    if sluice.logits(*common, *slots, *options).read_bytes() != whole:
                        complaints.append(f"{options} gives other bits")
                _, tensors = harness.read_safetensors(sluice.logits(*common))
                values = tensors["logits"].values
                if not all(map(math.isfinite, values)) or len(set(values)) < len(values) / 2:
                    complaints.append(f"{values[:8]}")


def check_routing(tap, sluice, model, name, banks):
    """A trace has the layers with experts, and can be replayed."""
    with tap.case(f"{name}: traced, and routed by a trace") as complaints:
        with harness.temporary_folder() as folder:
            (folder / "ids").write_text(" ".join(map(str, IDS)))
            trace = folder / "trace"
            sluice.good("trace", model, "--ids", folder / "ids", "-n", 4, "--out", trace)
            report = sluice.good("cache-sim", trace, "--json", "--capacity", banks * 4).json
            if (report["layers"], report["experts"], report["experts_used"]) != (banks, 16, 3):
                complaints.append(report)
            if name.startswith("glm4_moe"):  # a dense layer comes first; one family is enough
                sluice.good("bench", model, "--stream", "--route", trace, "--slots", banks * 4, "-n",
                            2, "--pairs", 1, "--json")


def tests(tap, sluice):
    for family, (banks, _) in FAMILIES.items():
        if not harness.SLOW and family not in ("qwen3_next", "glm4_moe", "gpt_oss"):
            continue
        with harness.temporary_folder() as folder:
            for layout in layouts_of(family):
                name = f"{family}, {layout}"
                model = None
                with tap.case(f"{name}: synth writes it"):
                    model = make(sluice, folder, family, layout)
                if model is None:
                    continue
                check_streamed(tap, sluice, model, name, banks)
                if layout == "mlx":
                    check_routing(tap, sluice, model, name, banks)


if __name__ == "__main__":
    harness.main(tests)

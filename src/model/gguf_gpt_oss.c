/* GPT-OSS as GGUF files have it. */
#include "model/gguf_arch.h"

/* YaRN's ramp is not rounded to whole dimensions, as published; no key says so. */
static enum sluice_status finish(const struct gguf_model *m)
{
    TRY(gguf_set_attention(m));
    return gguf_add_scaling(m, "truncate", json_false());
}

static const struct gguf_field fields[] = {
    GGUF_ATTENTION_FIELDS,
    {"attention.sliding_window", "sliding_window", true},
    {"expert_count", "num_local_experts", true},
    {"expert_feed_forward_length", "intermediate_size", true},
    {0},
};

static const struct gguf_rename renames[] = {
    {WEIGHT_moe_norm, "blk.#.post_attention_norm.weight"},
    {0},
};

const struct gguf_arch gguf_arch_gpt_oss = {
    .name = "gpt-oss",
    .model_type = "gpt_oss",
    .fields = fields,
    .renames = renames,
    .finish = finish,
};

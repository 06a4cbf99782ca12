/* Mixtral, of which GGUF files say that it is a llama with experts, and OLMoE. */
#include "model/gguf_arch.h"

/* Rows of q and k are stored so that values which rotate together are neighbours. */
static enum sluice_status finish_llama(const struct gguf_model *m)
{
    m->layout->rope_pairs = true;
    return gguf_set_attention(m);
}

static const struct gguf_field fields[] = {
    GGUF_ATTENTION_FIELDS,
    {"expert_count", "num_experts", true},
    {"feed_forward_length", "intermediate_size", true},
    {"attention.sliding_window", "sliding_window", false},
    {"expert_weights_norm", "norm_topk_prob", false},
    {0},
};

const struct gguf_arch gguf_arch_llama = {
    .name = "llama",
    .model_type = "mixtral",
    .fields = fields,
    .finish = finish_llama,
};

const struct gguf_arch gguf_arch_olmoe = {
    .name = "olmoe",
    .model_type = "olmoe",
    .fields = fields,
    .finish = gguf_set_attention,
};

/*
 * A model: its description read from a checkpoint's config, its graph, and its weights bound to the
 * graph's declarations. One family a file writes the graph; model.c joins the parts. Knows files
 * and the IR, no device.
 */
#ifndef SLUICE_MODEL_MODEL_H
#define SLUICE_MODEL_MODEL_H

#include "base/arena.h"
#include "base/log.h"
#include "ir/binding.h"
#include "ir/graph.h"
#include "store/bank.h"
#include "store/checkpoint.h"

enum tensor_kind { TENSOR_UNCLAIMED, TENSOR_DENSE, TENSOR_EXPERT, TENSOR_SKIPPED, TENSOR_PADDING };

struct model_options {
    bool keep_hidden; /* the graph keeps every layer's output */
    uint32_t n_picks; /* experts per token; 0: the config's */
    bool guess;       /* the graph guesses what its routers will choose, where the family can */
    const struct log *log;
};

enum { MODEL_MAX_EOS = 16 };

/* Where weights are in another order than a family's own; GGUF files have some so. */
struct model_layout {
    bool tiled_v_heads; /* DeltaNet: v head h uses k head h mod the number of k heads */
    bool split_qkvz;    /* DeltaNet: q, k, v and z are two matrices where the family has one */
    bool rope_pairs;    /* attention: values that rotate together are neighbours */
};

struct model {
    struct arena arena;
    const char *architecture; /* model_type of the text model */
    uint32_t vocab_size, hidden_size, n_layers, trained_context;
    uint32_t n_draft_layers; /* stored behind the layers; they predict further tokens */
    uint32_t n_experts, n_picks;
    int32_t eos[MODEL_MAX_EOS];
    uint32_t n_eos;
    bool tied; /* the head is the embedding */
    struct model_layout layout;
    json_t *gguf_config; /* what the metadata of a GGUF file means; NULL: none */

    struct graph graph;
    uint32_t tail_node; /* first node of the tail: select_rows, norm, head */
    buf_token_ids token_ids;
    buf_output_rows output_rows;
    buf_rope_freqs rope_freqs; /* id 0 when no layer rotates */
    const float *rope_values;
    buf_hidden last_hidden;
    buf_tail_normed tail_normed;
    buf_logits logits;
    buf_stream *hidden; /* keep_hidden: [n_layers], the input of each layer */

    struct weight_data *weights; /* per weight of the graph */
    const struct expert_bank **banks;
    uint32_t n_banks;
    enum tensor_kind *tensor_kind; /* per tensor of the checkpoint */

    uint64_t n_parameters;
    uint64_t dense_bytes, expert_bytes, bytes_per_expert, skipped_bytes, padding_bytes,
        converted_bytes;
};

/*
 * Describes and binds the model of cp, which must outlive it. Errors: UNSUPPORTED (unknown family
 * or feature, by name), NOT_FOUND (a tensor), MISMATCH (a shape), FORMAT (a config field), NOMEM.
 */
enum sluice_status model_init(struct model *model, const struct checkpoint *cp,
                              const struct model_options *options, struct sluice_error *err);
void model_release(struct model *model);

#endif

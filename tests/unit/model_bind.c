/* Binding: each published layout gives the same model, and what does not fit is named. */
#include <math.h>

#include "model/bind.h"
#include "tiny_open.h"

static bool same_matrix(const struct wmat *a, const struct wmat *b)
{
    struct wmat_bytes bytes = wmat_array_bytes(a);
    if (a->type != b->type || a->rows != b->rows || a->cols != b->cols || a->group != b->group)
        return false;
    if (memcmp(a->data, b->data, bytes.data) != 0) return false;
    if (bytes.scales && memcmp(a->scales, b->scales, bytes.scales) != 0) return false;
    return bytes.biases == 0 || memcmp(a->biases, b->biases, bytes.biases) == 0;
}

static void check_same_experts(const struct opened *a, const struct opened *b)
{
    REQUIRE(a->m.n_banks == 2 && b->m.n_banks == 2);
    for (uint32_t l = 0; l < 2; l++) {
        CHECK(a->m.banks[l]->n_experts == TINY_EXPERTS && a->m.banks[l]->layer == l);
        for (uint32_t e = 0; e < TINY_EXPERTS; e++) {
            const struct expert_view *x = &a->m.banks[l]->experts[e];
            const struct expert_view *y = &b->m.banks[l]->experts[e];
            CHECK(x->gate.rows == TINY_INTER && x->down.rows == TINY_HIDDEN);
            CHECK(same_matrix(&x->gate, &y->gate), "gate of %u.%u", l, e);
            CHECK(same_matrix(&x->up, &y->up), "up of %u.%u", l, e);
            CHECK(same_matrix(&x->down, &y->down), "down of %u.%u", l, e);
        }
    }
    CHECK(a->m.expert_bytes == b->m.expert_bytes && a->m.bytes_per_expert == b->m.bytes_per_expert);
    CHECK(a->m.n_parameters == b->m.n_parameters);
}

static void test_expert_layouts_are_one(void)
{
    static struct tiny t;
    static struct opened separate, fused, stacked;
    tiny_init(&t, TINY_SEPARATE);
    open_good(&separate, &t);
    tiny_init(&t, TINY_FUSED);
    open_good(&fused, &t);
    tiny_init(&t, TINY_STACKED);
    open_good(&stacked, &t);
    check_same_experts(&separate, &fused);
    check_same_experts(&separate, &stacked);
    uint64_t one = 3 * TINY_INTER * TINY_HIDDEN * 2;
    CHECK(separate.m.bytes_per_expert == one && separate.m.expert_bytes == 6 * one);
    close_tiny(&separate);
    close_tiny(&fused);
    close_tiny(&stacked);
}

/* Copies part e of a stacked tensor to one of its own. */
static void unstack(struct tiny *t, const char *from, const char *to, uint32_t e)
{
    const struct tiny_tensor *all = tiny_find(t, from);
    size_t part = all->bytes / TINY_EXPERTS;
    char dtype[8];
    memcpy(dtype, all->dtype, sizeof dtype);
    const uint8_t *data = all->data + e * part;
    uint64_t rows = all->shape[1], cols = all->shape[2];
    struct tiny_tensor *one = tiny_add(t, to, rows, cols, 0);
    tiny_reshape(t, to, dtype, part / (rows * cols), rows, cols, 0);
    memcpy(one->data, data, part);
}

static const char quantization[] = "\"quantization\": {\"bits\": 4, \"group_size\": 32}";

static void pack_experts(struct tiny *t, bool separate)
{
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    static const char *const parts[] = {"weight", "scales", "biases"};
    char base[80], from[112], to[144];
    for (uint32_t l = 0; l < 2; l++)
        for (int p = 0; p < 3; p++) {
            snprintf(base, sizeof base, "model.layers.%u.mlp.switch_mlp.%s", l, names[p]);
            tiny_pack(t, base, 4, 32);
            for (uint32_t i = 0; separate && i < 3 * TINY_EXPERTS; i++) {
                snprintf(from, sizeof from, "%s.%s", base, parts[i % 3]);
                snprintf(to, sizeof to, "model.layers.%u.mlp.experts.%u.%s.%s", l, i / 3, names[p],
                         parts[i % 3]);
                unstack(t, from, to, i / 3);
            }
            for (int i = 0; separate && i < 3; i++) {
                snprintf(from, sizeof from, "%s.%s", base, parts[i]);
                tiny_remove(t, from);
            }
        }
    tiny_field(t, quantization);
}

static void test_packed_expert_layouts_are_one(void)
{
    static struct tiny t;
    static struct opened separate, stacked;
    tiny_init(&t, TINY_STACKED);
    pack_experts(&t, false);
    open_good(&stacked, &t);
    tiny_init(&t, TINY_STACKED);
    pack_experts(&t, true);
    open_good(&separate, &t);
    check_same_experts(&separate, &stacked);
    CHECK(stacked.m.banks[0]->experts[1].up.type == WTYPE_Q4);
    close_tiny(&separate);
    close_tiny(&stacked);
}

static double stored(const struct tiny_tensor *t, size_t i)
{
    uint16_t half;
    memcpy(&half, t->data + 2 * i, sizeof half);
    return bf16_to_f32(half);
}

/* What becomes of small tensors. centred: norms were stored minus one. */
static void check_vectors(const struct opened *o, struct tiny *t, bool centred, bool rows_last)
{
    const float *norm = bound(o, WEIGHT_attn_norm)->values, *a = bound(o, WEIGHT_neg_a)->values;
    const float *gated = bound(o, WEIGHT_delta_norm)->values, *conv = bound(o, WEIGHT_conv)->values;
    const struct tiny_tensor *from = tiny_find(t, "model.layers.0.input_layernorm.weight");
    for (size_t i = 0; i < TINY_HIDDEN; i++)
        CHECK(norm[i] == (float)(stored(from, i) + centred), "%zu", i);
    from = tiny_find(t, "model.layers.0.linear_attn.norm.weight");
    for (size_t i = 0; i < 16; i++) CHECK(gated[i] == (float)stored(from, i), "%zu", i);
    from = tiny_find(t, "model.layers.0.linear_attn.A_log");
    for (size_t i = 0; i < 2; i++) CHECK(a[i] == -expf((float)stored(from, i)), "%zu", i);
    from = tiny_find(t, "model.layers.0.linear_attn.conv1d.weight");
    for (size_t c = 0; c < TINY_CHANNELS; c++)
        for (size_t j = 0; j < 4; j++)
            CHECK(conv[j * TINY_CHANNELS + c] == (float)stored(from, c * 4 + j), "%zu %zu", c, j);
    CHECK(from->shape[rows_last ? 2 : 1] == 4);
}

static void check_small_tensors(bool mlx_conv, bool mlx_file)
{
    static struct tiny t;
    struct opened o;
    struct sluice_error err = {0};
    tiny_init(&t, TINY_SEPARATE);
    t.mlx = mlx_file;
    uint64_t *shape = tiny_find(&t, "model.layers.0.linear_attn.conv1d.weight")->shape;
    if (mlx_conv) memcpy(shape, (uint64_t[]){TINY_CHANNELS, 4, 1}, 3 * sizeof *shape);
    CHECK_OK(open_tiny(&o, &t, 0, NULL, &err));
    check_vectors(&o, &t, !mlx_conv, !mlx_conv);
    close_tiny(&o);
    tiny_release(&t);
}

/* The convolution tells the layout, whatever the file says of itself. */
static void test_small_tensors_are_read_as_stored(void)
{
    check_small_tensors(false, false);
    check_small_tensors(true, true);
    check_small_tensors(true, false);
    check_small_tensors(false, true);
}

static void test_other_float_types(void)
{
    static struct tiny t;
    struct opened o;
    struct sluice_error err = {0};
    tiny_init(&t, TINY_FUSED);
    tiny_reshape(&t, "model.layers.0.input_layernorm.weight", "F32", 4, TINY_HIDDEN, 0, 0);
    tiny_reshape(&t, "model.norm.weight", "F16", 2, TINY_HIDDEN, 0, 0);
    tiny_reshape(&t, "lm_head.weight", "F32", 4, TINY_VOCAB, TINY_HIDDEN, 0);
    tiny_reshape(&t, "model.layers.1.self_attn.o_proj.weight", "F16", 2, TINY_HIDDEN, 32, 0);
    const float ones[] = {1, 0.5f, -2};
    memcpy(tiny_find(&t, "model.layers.0.input_layernorm.weight")->data, ones, sizeof ones);
    memcpy(tiny_find(&t, "model.norm.weight")->data, (uint16_t[]){0x3c00, 0xc000}, 4);
    CHECK_OK(open_tiny(&o, &t, 0, NULL, &err));
    CHECK(bound(&o, WEIGHT_attn_norm)->values[1] == 1.5f);
    CHECK(bound(&o, WEIGHT_attn_norm)->values[2] == -1);
    CHECK(bound(&o, WEIGHT_tail_norm)->values[0] == 2 &&
          bound(&o, WEIGHT_tail_norm)->values[1] == -1);
    CHECK(bound(&o, WEIGHT_lm_head)->matrix.type == WTYPE_F32);
    CHECK(bound(&o, WEIGHT_og_proj)->matrix.type == WTYPE_F16);
    close_tiny(&o);
    tiny_release(&t);
}

static void test_packed_tensors_that_do_not_fit(void)
{
    PACKED_REFUSED(MISMATCH,
                   "tensor '" O_PROJ ".weight' is packed, but DIR/config.json has no field "
                   "'quantization'",
                   "", (void)0);
    PACKED_REFUSED(UNSUPPORTED,
                   "model.safetensors: tensor '" O_PROJ ".biases' has type BF16; it must be F16",
                   quantization, tiny_reshape(t, O_PROJ ".scales", "F16", 2, 32, 1, 0));
    PACKED_REFUSED(UNSUPPORTED,
                   "model.safetensors: tensor '" O_PROJ ".biases' has type F32; it must be BF16",
                   quantization, tiny_reshape(t, O_PROJ ".biases", "F32", 4, 32, 1, 0));
    PACKED_REFUSED(NOT_FOUND,
                   "tensor '" O_PROJ ".scales' is missing: '" O_PROJ ".weight' is packed and needs "
                   "it",
                   quantization, tiny_remove(t, O_PROJ ".scales"));
    PACKED_REFUSED(NOT_FOUND,
                   "tensor '" O_PROJ ".biases' is missing: '" O_PROJ ".weight' is packed and needs "
                   "it",
                   quantization, tiny_remove(t, O_PROJ ".biases"));
    PACKED_REFUSED(MISMATCH,
                   "model.safetensors: tensor '" O_PROJ
                   ".scales' is 32 x 2 where the config asks for 32 x 1",
                   quantization, tiny_reshape(t, O_PROJ ".scales", "BF16", 2, 32, 2, 0));
    PACKED_REFUSED(MISMATCH,
                   "model.safetensors: tensor '" O_PROJ
                   ".biases' is 16 x 1 where the config asks for 32 x 1",
                   quantization, tiny_reshape(t, O_PROJ ".biases", "BF16", 2, 16, 1, 0));
    PACKED_REFUSED(MISMATCH,
                   "model.safetensors: tensor '" O_PROJ
                   ".weight' is 33 x 4 where the config asks for 32 x 4",
                   quantization, tiny_reshape(t, O_PROJ ".weight", "U32", 4, 33, 4, 0));
}

static void test_tensors_of_other_types(void)
{
    REFUSED(
        UNSUPPORTED,
        "model.safetensors: tensor 'lm_head.weight' has type I8; F32, F16, BF16, F8_E4M3, MLX's "
        "packed U32, MXFP4 and GGUF's blocks are supported",
        TINY_SEPARATE, tiny_reshape(t, "lm_head.weight", "I8", 1, 40, 32, 0));
    REFUSED(UNSUPPORTED,
            "model.safetensors: tensor 'model.norm.weight' has type I32; F32, F16 and BF16 are "
            "supported",
            TINY_SEPARATE, tiny_reshape(t, "model.norm.weight", "I32", 4, 32, 0, 0));
}

static void test_tensors_of_other_shapes(void)
{
    REFUSED(MISMATCH,
            "model.safetensors: tensor 'model.norm.weight' has 31 values where the config asks for "
            "32",
            TINY_SEPARATE, tiny_reshape(t, "model.norm.weight", "BF16", 2, 31, 0, 0));
    REFUSED(
        MISMATCH,
        "model.safetensors: tensor 'model.embed_tokens.weight' is 40 x 31 where the config asks "
        "for 40 x 32",
        TINY_SEPARATE, tiny_reshape(t, "model.embed_tokens.weight", "BF16", 2, 40, 31, 0));
    REFUSED(
        MISMATCH,
        "model.safetensors: tensor 'lm_head.weight' is 40 x 32 x 1 where the config asks for 40 "
        "x 32",
        TINY_SEPARATE, tiny_reshape(t, "lm_head.weight", "BF16", 2, 40, 32, 1));
    REFUSED(MISMATCH,
            "model.safetensors: tensor 'model.layers.0.linear_attn.conv1d.weight' has 4 channels "
            "where the config asks for 64",
            TINY_SEPARATE,
            tiny_reshape(t, "model.layers.0.linear_attn.conv1d.weight", "BF16", 2, 4, 1, 64));
    REFUSED(MISMATCH,
            "model.safetensors: tensor 'model.layers.0.linear_attn.conv1d.weight' has 192 values "
            "where the config asks for 256",
            TINY_SEPARATE,
            tiny_reshape(t, "model.layers.0.linear_attn.conv1d.weight", "BF16", 2, 64, 1, 3));
    REFUSED(MISMATCH,
            "model.safetensors: tensor 'model.layers.0.mlp.experts.gate_up_proj' is 2 x 128 x 32 "
            "where the config asks for 3 x 128 x 32",
            TINY_FUSED,
            tiny_reshape(t, "model.layers.0.mlp.experts.gate_up_proj", "BF16", 2, 2, 128, 32));
    REFUSED(
        MISMATCH,
        "model.safetensors: tensor 'model.layers.1.mlp.switch_mlp.down_proj.weight' is 3 x 32 x "
        "32 where the config asks for 3 x 32 x 64",
        TINY_STACKED,
        tiny_reshape(t, "model.layers.1.mlp.switch_mlp.down_proj.weight", "BF16", 2, 3, 32, 32));
}

static void test_missing_tensors(void)
{
    REFUSED(NOT_FOUND,
            "tensor 'model.embed_tokens.weight' is missing in 'DIR', also under the prefixes "
            "'model.language_model.' and 'language_model.model.'",
            TINY_SEPARATE, tiny_remove(t, "model.embed_tokens.weight"));
    REFUSED(NOT_FOUND, "tensor 'model.norm.weight' is missing in 'DIR'", TINY_SEPARATE,
            tiny_remove(t, "model.norm.weight"));
    REFUSED(NOT_FOUND, "tensor 'lm_head.weight' is missing in 'DIR'", TINY_SEPARATE,
            tiny_remove(t, "lm_head.weight"));
    REFUSED(NOT_FOUND, "tensor 'model.layers.1.mlp.experts.2.up_proj.weight' is missing in 'DIR'",
            TINY_SEPARATE, tiny_remove(t, "model.layers.1.mlp.experts.2.up_proj.weight"));
    REFUSED(NOT_FOUND, "tensor 'model.layers.0.mlp.experts.down_proj.weight' is missing in 'DIR'",
            TINY_FUSED, tiny_remove(t, "model.layers.0.mlp.experts.down_proj"));
    REFUSED(NOT_FOUND, "tensor 'model.layers.0.mlp.switch_mlp.up_proj.weight' is missing in 'DIR'",
            TINY_STACKED, tiny_remove(t, "model.layers.0.mlp.switch_mlp.up_proj.weight"));
}

/* A tensor of the text model that nothing asks for may be one that the model needs. */
static void test_unknown_tensors(void)
{
    REFUSED(
        UNSUPPORTED,
        "model.safetensors: tensor 'model.layers.1.self_attn.o_proj.bias' belongs to no part of "
        "qwen3_5_moe_text that is known",
        TINY_SEPARATE, tiny_put(t, "model.layers.1.self_attn.o_proj.bias", 32, 0, 0));
    REFUSED(
        UNSUPPORTED,
        "model.safetensors: tensor 'model.layers.0.mlp.experts.3.gate_proj.weight' belongs to no "
        "part of qwen3_5_moe_text that is known",
        TINY_SEPARATE, tiny_put(t, "model.layers.0.mlp.experts.3.gate_proj.weight", 64, 32, 0));
    REFUSED(
        UNSUPPORTED,
        "model.safetensors: tensor 'model.layers.2.input_layernorm.weight' belongs to no part of "
        "qwen3_5_moe_text that is known",
        TINY_SEPARATE, tiny_put(t, "model.layers.2.input_layernorm.weight", 32, 0, 0));
    REFUSED(UNSUPPORTED,
            "model.safetensors: tensor 'model.audiovisual.weight' belongs to no part of "
            "qwen3_5_moe_text that is known",
            TINY_SEPARATE, tiny_put(t, "model.audiovisual.weight", 2, 2, 0));
    REFUSED(UNSUPPORTED,
            "model.safetensors: tensor 'model.layers.1.self_attn.o_proj.scales' belongs to no part "
            "of qwen3_5_moe_text that is known",
            TINY_SEPARATE, tiny_put(t, O_PROJ ".scales", 32, 1, 0));
}

static void test_vision_and_draft_are_skipped(void)
{
    static struct tiny t;
    struct opened o;
    struct sluice_error err = {0};
    struct log_lines lines = {""};
    struct log log = {keep_line, &lines};
    tiny_init(&t, TINY_SEPARATE);
    CHECK_OK(open_tiny(&o, &t, 0, &log, &err));
    CHECK(lines.text[0] == '\0', "%s", lines.text);
    CHECK(o.m.skipped_bytes == 0);
    close_tiny(&o);
    tiny_put(&t, "model.visual.blocks.0.attn.qkv.weight", 700, 1000, 0);
    tiny_put(&t, "vision_tower.patch_embed.proj.weight", 3, 4, 5);
    tiny_put(&t, "mtp.layers.0.mlp.gate.weight", 3, 32, 0);
    CHECK_OK(open_tiny(&o, &t, 0, &log, &err));
    CHECK(o.m.skipped_bytes == 2 * (700000 + 60 + 96));
    CHECK(strcmp(lines.text,
                 "1:3 tensors (1.3 MiB) of vision or draft layers are skipped: text does "
                 "not need them\n") == 0,
          "%s", lines.text);
    close_tiny(&o);
    tiny_release(&t);
}

static void test_tied_heads(void)
{
    static struct tiny t;
    struct opened o;
    for (int with_head = 0; with_head < 2; with_head++) {
        tiny_init(&t, TINY_SEPARATE);
        tiny_field(&t, "\"tie_word_embeddings\": true");
        if (!with_head) tiny_remove(&t, "lm_head.weight");
        open_good(&o, &t);
        CHECK(bound(&o, WEIGHT_lm_head)->matrix.data == bound(&o, WEIGHT_embed)->matrix.data);
        CHECK(o.m.tied && o.m.skipped_bytes == (with_head ? 2 * 40 * 32 : 0));
        close_tiny(&o);
    }
    tiny_init(&t, TINY_SEPARATE);
    open_good(&o, &t);
    CHECK(!o.m.tied);
    CHECK(bound(&o, WEIGHT_lm_head)->matrix.data != bound(&o, WEIGHT_embed)->matrix.data);
    close_tiny(&o);
}

static void rename_all(struct tiny *t, const char *prefix, const char *head)
{
    char name[128];
    for (size_t i = 0; i < t->n; i++) {
        struct tiny_tensor *x = &t->tensors[i];
        bool is_head = strncmp(x->name, "lm_head", 7) == 0;
        snprintf(name, sizeof name, "%s%s", is_head ? head : prefix,
                 x->name + (is_head ? 0 : strlen("model.")));
        snprintf(x->name, sizeof x->name, "%.143s", name);
    }
}

static void test_prefixes(void)
{
    static const char *const prefixes[][2] = {{"model.language_model.", ""},
                                              {"language_model.model.", "language_model."},
                                              {"model.", ""},
                                              {"language_model.", ""},
                                              {"", ""}};
    static struct tiny t;
    static struct opened plain, other;
    tiny_init(&t, TINY_SEPARATE);
    open_good(&plain, &t);
    for (int i = 0; i < 5; i++) {
        tiny_init(&t, TINY_SEPARATE);
        rename_all(&t, prefixes[i][0], prefixes[i][1]);
        open_good(&other, &t);
        check_same_experts(&plain, &other);
        CHECK(same_matrix(&bound(&plain, WEIGHT_lm_head)->matrix,
                          &bound(&other, WEIGHT_lm_head)->matrix));
        close_tiny(&other);
    }
    close_tiny(&plain);
}

static void test_rows_of_a_matrix(void)
{
    uint8_t data[480], scales[64], biases[64];
    struct wmat all = {.type = WTYPE_Q3,
                       .rows = 10,
                       .cols = 128,
                       .group = 64,
                       .data = data,
                       .scales = scales,
                       .biases = biases};
    struct wmat part = wmat_rows(&all, 4, 5);
    CHECK(part.rows == 5 && part.cols == 128 && part.group == 64);
    CHECK(part.data == data + 4 * 48 && part.scales == scales + 16 && part.biases == biases + 16);
    CHECK(wmat_bytes(&part) == 5 * (48 + 8) && wmat_bytes(&all) == 10 * (48 + 8));
    all = (struct wmat){.type = WTYPE_F32, .rows = 10, .cols = 3, .data = data};
    part = wmat_rows(&all, 9, 1);
    CHECK(part.data == data + 108 && part.scales == NULL && wmat_bytes(&part) == 12);
}

#define CASES(C)                                                                                   \
    C(expert_layouts_are_one)                                                                      \
    C(packed_expert_layouts_are_one)                                                               \
    C(small_tensors_are_read_as_stored)                                                            \
    C(other_float_types)                                                                           \
    C(packed_tensors_that_do_not_fit)                                                              \
    C(tensors_of_other_types)                                                                      \
    C(tensors_of_other_shapes)                                                                     \
    C(missing_tensors)                                                                             \
    C(unknown_tensors)                                                                             \
    C(vision_and_draft_are_skipped)                                                                \
    C(tied_heads)                                                                                  \
    C(prefixes)                                                                                    \
    C(rows_of_a_matrix)
CHECK_MAIN(CASES)

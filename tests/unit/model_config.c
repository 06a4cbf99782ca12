/* Configs: what is read from them, and what does not fit or is not supported. */
#include <math.h>

#include "model/bind.h"
#include "tiny_open.h"

#define CONFIG_REFUSED(code_, text, was, now)                                                      \
    REFUSED(code_, text, TINY_SEPARATE, tiny_edit(t, was, now))

static void test_rotation_that_is_not_supported(void)
{
    CONFIG_REFUSED(MISMATCH,
                   "DIR/config.json: head_dim 16 times partial_rotary_factor 0.45 gives 7 rotated "
                   "dimensions; an even number is needed",
                   "\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": 0.45");
    CONFIG_REFUSED(MISMATCH,
                   "DIR/config.json: head_dim 16 times partial_rotary_factor 0 gives 0 rotated "
                   "dimensions; an even number is needed",
                   "\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": 0");
    CONFIG_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'rope_parameters.rope_type' is 'longrope', which is not supported",
        "\"partial_rotary_factor\": 0.5", "\"rope_parameters\": {\"rope_type\": \"longrope\"}");
}

/* The interpolated frequencies, and what cosines and sines are multiplied with. */
static void check_yarn(const char *fields, const double *want, double scale)
{
    static struct tiny t;
    struct opened o;
    char field[256];
    snprintf(field, sizeof field, "\"rope_parameters\": {\"rope_type\": \"yarn\", %s}", fields);
    tiny_init(&t, TINY_SEPARATE);
    tiny_edit(&t, "\"partial_rotary_factor\": 0.5", field);
    open_good(&o, &t);
    for (uint32_t i = 0; i < 2; i++) {
        double have = (double)o.m.rope_values[i];
        CHECK(fabs(have - want[i]) <= 1e-6 * want[i], "%u: %.9g instead of %.9g", i, have, want[i]);
    }
    double have = (double)o.m.graph.nodes.items[0].u.rope_angles.scale;
    CHECK(fabs(have - scale) <= 1e-6 * scale, "scale %.9g instead of %.9g", have, scale);
    close_tiny(&o);
}

/*
 * 4 of 16 values rotate: dimension 0 turns once in 2 pi positions, dimension 1 in 200 pi. In 1000
 * positions one rotation is dimension 1.1009, and ten are dimension 0.6009.
 */
static void test_yarn(void)
{
#define COMMON                                                                                     \
    "\"rope_theta\": 10000, \"partial_rotary_factor\": 0.25, \"factor\": 8, "                      \
    "\"original_max_position_embeddings\": 1000, \"beta_fast\": 10, \"beta_slow\": 1"
    double factor = 0.1 * log(8) + 1;
    /* The ramp from 0 to 2 is half way at dimension 1; not truncated, it is 0.798 of the way. */
    double whole[] = {1, 0.01 * (0.5 + 0.5 / 8)};
    double low = log(1000 / (20 * acos(-1))) * 4 / (2 * log(10000));
    double high = log(1000 / (2 * acos(-1))) * 4 / (2 * log(10000));
    double share = (1 - low) / (high - low);
    double broken[] = {1, 0.01 * (1 - share + share / 8)};
    check_yarn(COMMON, whole, factor);
    check_yarn(COMMON ", \"truncate\": false", broken, factor);
    check_yarn(COMMON ", \"attention_factor\": 0.5", whole, 0.5);
    check_yarn(COMMON ", \"mscale\": 1, \"mscale_all_dim\": 1", whole, 1);
    check_yarn(COMMON ", \"mscale\": 2, \"mscale_all_dim\": 1", whole, (0.2 * log(8) + 1) / factor);
    check_yarn(COMMON ", \"mscale\": 2", whole, factor);
#undef COMMON
    CONFIG_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'rope_theta' is 1, by which YaRN cannot tell rotations apart",
        "\"partial_rotary_factor\": 0.5",
        "\"rope_theta\": 1, \"rope_parameters\": {\"rope_type\": \"yarn\"}");
}

static void test_layer_lists_that_do_not_fit(void)
{
    static const char list[] = "[\"linear_attention\", \"full_attention\"]";
    static const char length[] =
        "DIR/config.json: field 'layer_types' must list one type for each of the 2 layers";
    CONFIG_REFUSED(MISMATCH, length, list, "[\"linear_attention\"]");
    CONFIG_REFUSED(MISMATCH, length, list, "[]");
    CONFIG_REFUSED(MISMATCH, length, list, "\"full_attention\"");
    CONFIG_REFUSED(UNSUPPORTED,
                   "DIR/config.json: field 'layer_types': layer 1 has type 'sliding_attention'; "
                   "linear_attention and full_attention are supported",
                   list, "[\"linear_attention\", \"sliding_attention\"]");
    CONFIG_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'layer_types': layer 0 has type '?'; linear_attention and "
        "full_attention are supported",
        list, "[1, 2]");
}

static void test_layer_interval(void)
{
    static struct tiny t;
    struct opened o;
    tiny_init(&t, TINY_SEPARATE);
    tiny_edit(&t, "\"layer_types\": [\"linear_attention\", \"full_attention\"]",
              "\"full_attention_interval\": 2");
    open_good(&o, &t);
    CHECK(o.m.graph.states.n == 3);
    close_tiny(&o);
}

static void test_heads_that_do_not_divide(void)
{
    CONFIG_REFUSED(MISMATCH,
                   "DIR/config.json: 3 attention heads cannot share 2 key-value heads evenly",
                   "\"num_attention_heads\": 2, \"num_key_value_heads\": 1",
                   "\"num_attention_heads\": 3, \"num_key_value_heads\": 2");
    CONFIG_REFUSED(MISMATCH,
                   "DIR/config.json: 2 linear value heads cannot share 3 key heads evenly",
                   "\"linear_num_key_heads\": 1", "\"linear_num_key_heads\": 3");
    CONFIG_REFUSED(UNSUPPORTED,
                   "DIR/config.json: 1048576 attention heads of size 1048576 are too wide",
                   "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 16",
                   "\"num_attention_heads\": 1048576, \"head_dim\": 1048576");
}

static void test_features_that_are_not_supported(void)
{
#define FIELD_REFUSED(text, field) REFUSED(UNSUPPORTED, text, TINY_SEPARATE, tiny_field(t, field))
    FIELD_REFUSED("DIR/config.json: field 'attention_bias' is 'true', which is not supported",
                  "\"attention_bias\": true");
    FIELD_REFUSED("DIR/config.json: field 'attn_output_gate' is 'false', which is not supported",
                  "\"attn_output_gate\": false");
    FIELD_REFUSED("DIR/config.json: field 'hidden_act' is 'gelu', which is not supported",
                  "\"hidden_act\": \"gelu\"");
    static const char unknown[] =
        "DIR/config.json: field 'model_type' is 'llama', which is not supported; supported are:"
#define A(name, type) " " type
#include "model/arch.def"
#undef A
        ;
    CONFIG_REFUSED(UNSUPPORTED, unknown, "qwen3_5_moe_text", "llama");
}

static void test_experts_per_token(void)
{
    static struct tiny t;
    struct opened o;
    struct sluice_error err = {0};
    tiny_init(&t, TINY_SEPARATE);
    CHECK(open_tiny(&o, &t, 4, NULL, &err) == SLUICE_E_ARGUMENT);
    CHECK(strcmp(err.message, "4 experts per token were asked for; there are 3") == 0, "%s",
          err.message);
    close_tiny(&o);
    for (uint32_t k = 0; k <= 3; k++) {
        CHECK_OK(open_tiny(&o, &t, k, NULL, &err));
        CHECK(o.m.n_picks == (k ? k : 2) && o.m.graph.n_picks == o.m.n_picks);
        close_tiny(&o);
    }
    tiny_edit(&t, "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 4");
    CHECK(open_tiny(&o, &t, 0, NULL, &err) < 0);
    CHECK(strstr(err.message, "num_experts_per_tok"), "%s", err.message);
    close_tiny(&o);
    tiny_release(&t);
}

/* The config's field, the generation config's, and who decides when there are both. */
static void check_ends(const char *field, const char *generation, const char *want)
{
    static struct tiny t;
    struct opened o;
    char have[64] = "";
    tiny_init(&t, TINY_SEPARATE);
    if (field) tiny_field(&t, field);
    snprintf(t.generation, sizeof t.generation, "%s", generation);
    open_good(&o, &t);
    for (uint32_t i = 0; i < o.m.n_eos; i++)
        snprintf(have + strlen(have), sizeof have - strlen(have), "%d ", o.m.eos[i]);
    CHECK(strcmp(have, want) == 0, "'%s' instead of '%s'", have, want);
    close_tiny(&o);
}

static void test_end_ids(void)
{
    check_ends(NULL, "", "");
    check_ends("\"eos_token_id\": 39", "", "39 ");
    check_ends("\"eos_token_id\": [3, 0]", "", "3 0 ");
    check_ends("\"eos_token_id\": null", "{}", "");
    check_ends("\"eos_token_id\": 5", "{\"eos_token_id\": [7, 8]}", "7 8 ");
    check_ends("\"eos_token_id\": 5", "{\"temperature\": 1}", "5 ");
    static const char range[] =
        "DIR/config.json: field 'eos_token_id' must be ids below the vocabulary size 40";
    REFUSED(FORMAT, range, TINY_SEPARATE, tiny_field(t, "\"eos_token_id\": 40"));
    REFUSED(FORMAT, range, TINY_SEPARATE, tiny_field(t, "\"eos_token_id\": -1"));
    REFUSED(FORMAT, range, TINY_SEPARATE, tiny_field(t, "\"eos_token_id\": [1, \"2\"]"));
    REFUSED(FORMAT, range, TINY_SEPARATE, tiny_field(t, "\"eos_token_id\": 1.5"));
    REFUSED(UNSUPPORTED, "DIR/config.json: field 'eos_token_id' lists more than 16 ids",
            TINY_SEPARATE, tiny_field(t, "\"eos_token_id\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"));
}

static void test_quantisation_that_does_not_fit(void)
{
    PACKED_REFUSED(
        MISMATCH,
        "model.safetensors: tensor '" O_PROJ
        ".weight' has rows of 4 words, which does not fit 32 columns of 8 bits in groups "
        "of 32 as DIR/config.json says",
        "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"" O_PROJ "\": {\"bits\": 8}}",
        (void)0);
    PACKED_REFUSED(
        MISMATCH,
        "model.safetensors: tensor '" O_PROJ
        ".weight' has rows of 4 words, which does not fit 32 columns of 4 bits in groups "
        "of 64 as DIR/config.json says",
        "\"quantization\": {\"bits\": 4, \"group_size\": 64}", (void)0);
    PACKED_REFUSED(
        MISMATCH,
        "tensor '" O_PROJ ".weight' is packed, but DIR/config.json says it is not quantised",
        "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"" O_PROJ "\": false}", (void)0);
    PACKED_REFUSED(
        FORMAT, "DIR/config.json: field 'quantization." O_PROJ "' must be an object or a boolean",
        "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"" O_PROJ "\": 4}", (void)0);
    PACKED_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field '" O_PROJ ".bits' is 7; 2, 3, 4, 5, 6 and 8 are supported",
        "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"" O_PROJ "\": {\"bits\": 7}}",
        (void)0);
    PACKED_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'quantization.bits' is 1; 2, 3, 4, 5, 6 and 8 are supported",
        "\"quantization\": {\"bits\": 1, \"group_size\": 32}", (void)0);
    PACKED_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'quantization.group_size' is 16; 32, 64 and 128 are supported",
        "\"quantization\": {\"bits\": 4, \"group_size\": 16}", (void)0);
    PACKED_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'quantization.mode' is 'nvfp4'; only 'affine' and 'mxfp4' "
        "quantisation are supported",
        "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"mode\": \"nvfp4\"}", (void)0);
    PACKED_REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'quantization_config.quant_method' is 'gptq', which is not "
        "supported; 'mxfp4', 'fp8' and MLX's affine quantisation are",
        "\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}", (void)0);
}

/* An override in each way that converters write it. */
static void test_overrides(void)
{
    static const char *const sections[] = {
        "\"quantization\": {\"bits\": 4, \"group_size\": 32}",
        "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"" O_PROJ "\": true}",
        "\"quantization\": {\"bits\": 8, \"group_size\": 64, \"" O_PROJ
        "\": {\"bits\": 4, \"group_size\": 32}}",
        "\"quantization_config\": {\"bits\": 4, \"group_size\": 32}",
        "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"lm_head\": false}",
    };
    static struct tiny t;
    for (int i = 0; i < 5; i++) {
        struct opened o;
        tiny_init(&t, TINY_SEPARATE);
        tiny_pack(&t, O_PROJ, 4, 32);
        tiny_field(&t, sections[i]);
        open_good(&o, &t);
        const struct wmat *m = &bound(&o, WEIGHT_og_proj)->matrix;
        CHECK(m->type == WTYPE_Q4 && m->group == 32 && m->rows == 32 && m->cols == 32, "%d", i);
        CHECK(bound(&o, WEIGHT_lm_head)->matrix.type == WTYPE_BF16);
        CHECK(wmat_bytes(m) == 32 * (16 + 4));
        close_tiny(&o);
    }
}

static void test_bits_have_types(void)
{
    for (uint32_t bits = 0; bits <= 40; bits++) {
        enum wtype type = WTYPE_COUNT;
        bool known = bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
        CHECK(quant_wtype(bits, &type) == known, "%u", bits);
        if (known) CHECK(wtype_is_packed(type) && wtype_bits(type) == bits, "%u", bits);
    }
}

#define CASES(C)                                                                                   \
    C(rotation_that_is_not_supported)                                                              \
    C(yarn)                                                                                        \
    C(layer_lists_that_do_not_fit)                                                                 \
    C(layer_interval)                                                                              \
    C(heads_that_do_not_divide)                                                                    \
    C(features_that_are_not_supported)                                                             \
    C(experts_per_token)                                                                           \
    C(end_ids)                                                                                     \
    C(quantisation_that_does_not_fit)                                                              \
    C(overrides)                                                                                   \
    C(bits_have_types)
CHECK_MAIN(CASES)

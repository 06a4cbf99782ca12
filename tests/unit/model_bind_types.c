/* Matrices of MXFP4 and FP8: what binds, and what is refused by name. */
#include "model/bind.h"
#include "tiny_open.h"

#define FP8_CONFIG                                                                                 \
    "\"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", "                     \
    "\"weight_block_size\": [128, 128]}"
#define MLX_CONFIG "\"quantization\": {\"bits\": 4, \"group_size\": 32, \"mode\": \"mxfp4\"}"
#define HF_CONFIG "\"quantization_config\": {\"quant_method\": \"mxfp4\"}"

/* MLX's mode: words of codes and a byte for each 32, no biases. */
static void make_mlx(struct tiny *t)
{
    tiny_pack(t, O_PROJ, 4, 32);
    tiny_remove(t, O_PROJ ".biases");
    tiny_reshape(t, O_PROJ ".scales", "U8", 1, TINY_HIDDEN, 1, 0);
}

/* Hugging Face's: 16 bytes for each 32 values. */
static void make_hf(struct tiny *t)
{
    tiny_reshape(t, O_PROJ ".weight", "U8", 1, TINY_HIDDEN, 1, 16);
    tiny_rename(t, O_PROJ ".weight", O_PROJ "_blocks");
    tiny_put(t, O_PROJ "_scales", TINY_HIDDEN, 1, 0);
    tiny_reshape(t, O_PROJ "_scales", "U8", 1, TINY_HIDDEN, 1, 0);
}

static void make_fp8(struct tiny *t)
{
    tiny_reshape(t, O_PROJ ".weight", "F8_E4M3", 1, TINY_HIDDEN, 32, 0);
    tiny_put(t, O_PROJ ".weight_scale_inv", 1, 1, 0);
}

static void expect_mxfp4(void (*make)(struct tiny *t), const char *config)
{
    static struct tiny t;
    struct opened o;
    tiny_init(&t, TINY_SEPARATE);
    make(&t);
    tiny_field(&t, config);
    open_good(&o, &t);
    const struct wmat *m = &bound(&o, WEIGHT_og_proj)->matrix;
    CHECK(m->type == WTYPE_MXFP4_SPLIT && m->rows == TINY_HIDDEN && m->cols == 32);
    CHECK(m->data && m->scales && !m->biases);
    CHECK(wmat_bytes(m) == TINY_HIDDEN * 17);
    struct wmat rows = wmat_rows(m, 5, 2);
    CHECK(rows.data == m->data + 5 * 16 && rows.scales == m->scales + 5);
    close_tiny(&o);
}

static void test_mxfp4(void)
{
    expect_mxfp4(make_mlx, MLX_CONFIG);
    expect_mxfp4(make_mlx, "\"quantization\": {\"group_size\": 64, \"bits\": 8, \"" O_PROJ
                           "\": {\"mode\": \"mxfp4\"}}");
    expect_mxfp4(make_mlx, HF_CONFIG);
    expect_mxfp4(make_hf, HF_CONFIG);
}

static void test_mxfp4_that_does_not_fit(void)
{
    REFUSED(NOT_FOUND,
            "tensor '" O_PROJ ".scales' is missing: '" O_PROJ ".weight' is packed and needs it",
            TINY_SEPARATE, make_mlx(t);
            tiny_field(t, MLX_CONFIG); tiny_remove(t, O_PROJ ".scales"));
    REFUSED(UNSUPPORTED,
            "model.safetensors: tensor '" O_PROJ ".scales' has type U8; it must be BF16",
            TINY_SEPARATE, make_mlx(t);
            tiny_field(t, "\"quantization\": {\"bits\": 4, \"group_size\": 32}"));
    REFUSED(
        UNSUPPORTED,
        "DIR/config.json: field 'quantization' has mode 'mxfp4' with 4 bits in groups of 64; it is "
        "4 bits in groups of 32",
        TINY_SEPARATE, make_mlx(t);
        tiny_field(t, "\"quantization\": {\"group_size\": 64, \"mode\": \"mxfp4\"}"));
    REFUSED(MISMATCH,
            "model.safetensors: tensor '" O_PROJ "_blocks' is not MXFP4 codes of rows of 32: 16 "
            "bytes of type U8 for each 32",
            TINY_SEPARATE, make_hf(t);
            tiny_field(t, HF_CONFIG);
            tiny_reshape(t, O_PROJ "_blocks", "U8", 1, TINY_HIDDEN, 2, 8));
    REFUSED(
        MISMATCH,
        "model.safetensors: tensor '" O_PROJ "_scales' is 32 x 2 where the config asks for 32 x 1",
        TINY_SEPARATE, make_hf(t);
        tiny_field(t, HF_CONFIG); tiny_reshape(t, O_PROJ "_scales", "U8", 1, TINY_HIDDEN, 2, 0));
}

static void test_fp8(void)
{
    static const char *const dtypes[] = {"BF16", "F32"};
    static struct tiny t;
    for (int wide = 0; wide < 2; wide++) {
        struct opened o;
        tiny_init(&t, TINY_SEPARATE);
        make_fp8(&t);
        tiny_reshape(&t, O_PROJ ".weight_scale_inv", dtypes[wide], wide ? 4 : 2, 1, 1, 0);
        tiny_field(&t, FP8_CONFIG);
        open_good(&o, &t);
        const struct wmat *m = &bound(&o, WEIGHT_og_proj)->matrix;
        CHECK(m->type == WTYPE_F8_E4M3 && m->f32_scales == wide && m->tile_row == 0);
        CHECK(wmat_bytes(m) == TINY_HIDDEN * 32 + (wide ? 4 : 2));
        close_tiny(&o);
    }
}

static void test_fp8_that_does_not_fit(void)
{
    REFUSED(
        MISMATCH,
        "model.safetensors: tensor '" O_PROJ
        ".weight' has type F8_E4M3, but DIR/config.json has no field 'quantization_config' with "
        "the method 'fp8'",
        TINY_SEPARATE, make_fp8(t));
    REFUSED(NOT_FOUND,
            "tensor '" O_PROJ ".weight_scale_inv' is missing: '" O_PROJ
            ".weight' is packed and needs it",
            TINY_SEPARATE, make_fp8(t);
            tiny_field(t, FP8_CONFIG); tiny_remove(t, O_PROJ ".weight_scale_inv"));
    REFUSED(MISMATCH,
            "model.safetensors: tensor '" O_PROJ
            ".weight_scale_inv' is 2 x 1 where the config asks for 1 x 1",
            TINY_SEPARATE, make_fp8(t);
            tiny_field(t, FP8_CONFIG);
            tiny_reshape(t, O_PROJ ".weight_scale_inv", "BF16", 2, 2, 1, 0));
    REFUSED(UNSUPPORTED,
            "DIR/config.json: FP8 weights of this kind are not supported; e4m3 with a "
            "'weight_block_size' of [128, 128] is",
            TINY_SEPARATE, make_fp8(t);
            tiny_field(t, "\"quantization_config\": {\"quant_method\": \"fp8\", "
                          "\"weight_block_size\": [128, 64]}"));
    REFUSED(UNSUPPORTED,
            "DIR/config.json: FP8 weights of this kind are not supported; e4m3 with a "
            "'weight_block_size' of [128, 128] is",
            TINY_SEPARATE, make_fp8(t);
            tiny_field(t, "\"quantization_config\": {\"quant_method\": \"fp8\"}"));
}

/* Slices of a matrix keep their place in the grid of tiles. */
static void test_rows_of_tiles(void)
{
    static uint8_t data[600 * 300], scales[5 * 3 * 2];
    struct wmat all = {
        .type = WTYPE_F8_E4M3, .rows = 600, .cols = 300, .data = data, .scales = scales};
    CHECK(wmat_array_bytes(&all).scales == 5 * 3 * 2);
    struct wmat part = wmat_rows(&all, 200, 100);
    CHECK(part.data == data + 200 * 300 && part.scales == scales + 6 && part.tile_row == 72);
    CHECK(wmat_array_bytes(&part).scales == 2 * 3 * 2);
    struct wmat last = wmat_rows(&part, 60, 40);
    CHECK(last.scales == scales + 12 && last.tile_row == 4);
    CHECK(wmat_array_bytes(&last).scales == 3 * 2);
}

/* What a file calls a block and what kernels call one are the same bytes. */
static void test_blocks_are_one(void)
{
#define D(name, text, bytes, gguf)
#define B(name, text, weights, bytes, gguf)                                                        \
    CHECK(wtype_block_values(WTYPE_##name) == (weights) &&                                         \
              wtype_block_bytes(WTYPE_##name) == (bytes),                                          \
          "%s", text);
#include "format/dtype.def"
#undef B
#undef D
}

#define CASES(C)                                                                                   \
    C(mxfp4)                                                                                       \
    C(mxfp4_that_does_not_fit)                                                                     \
    C(fp8)                                                                                         \
    C(fp8_that_does_not_fit)                                                                       \
    C(rows_of_tiles)                                                                               \
    C(blocks_are_one)
CHECK_MAIN(CASES)

/* Safetensors headers: a good one entry by entry, then everything that can be wrong with one. */
#include <stdlib.h>

#include "check.h"
#include "format/safetensors.h"
#include "safetensors_bytes.h"

static struct sluice_error err;

#define FILE_NAME "model-00001-of-00002.safetensors"

/* Parses header with n_data bytes of data behind it; the file ends there. */
static enum sluice_status parse(const char *header, size_t n_data, struct arena *arena,
                                struct safetensors_header *out)
{
    struct file_bytes f = safetensors_bytes(header, n_data);
    err.message[0] = '\0';
    enum sluice_status status =
        safetensors_parse(span_of(f.data, f.len), f.len, FILE_NAME, arena, out, &err);
    free(f.data);
    return status;
}

static void expect_says(const char *says)
{
    CHECK(strncmp(err.message, FILE_NAME ": ", sizeof FILE_NAME + 1) == 0, "%s", err.message);
    CHECK(strstr(err.message, says) != NULL, "'%s' should say '%s'", err.message, says);
}

static void expect_refused(const char *header, size_t n_data, const char *says)
{
    struct arena arena = {0};
    struct safetensors_header out;
    enum sluice_status status = parse(header, n_data, &arena, &out);
    CHECK(status == SLUICE_E_FORMAT && err.code == status, "status %d for %s", status, header);
    expect_says(says);
    arena_release(&arena);
}

/* One tensor "a.weight" of this description, 8 bytes of data. */
static void expect_tensor_refused(const char *tensor, const char *says)
{
    char header[512], full[256];
    snprintf(header, sizeof header, "{\"a.weight\":%s}", tensor);
    snprintf(full, sizeof full, "tensor 'a.weight': %s", says);
    expect_refused(header, 8, full);
}

static void test_entries(void)
{
    struct arena arena = {0};
    struct safetensors_header out;
    REQUIRE(parse("{\"b\":{\"dtype\":\"BF16\",\"shape\":[3,2],\"data_offsets\":[4,16]},"
                  "\"__metadata__\":{\"format\":\"mlx\",\"x\":\"y\"},"
                  "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"more\":[1]},"
                  "\"empty\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[4,4]}}  ",
                  16, &arena, &out) == SLUICE_OK,
            "%s", err.message);
    REQUIRE(out.n_entries == 3);
    CHECK(strcmp(out.format, "mlx") == 0);
    const struct tensor_entry *a = &out.entries[0], *empty = &out.entries[1], *b = &out.entries[2];
    CHECK(strcmp(a->name, "a") == 0 && a->dtype == DTYPE_F32 && a->rank == 0 && a->bytes == 4);
    CHECK(a->offset == out.data_offset);
    CHECK(strcmp(empty->name, "empty") == 0 && empty->bytes == 0 && empty->rank == 2);
    CHECK(empty->shape[0] == 0 && empty->shape[1] == 5 && empty->offset == out.data_offset + 4);
    CHECK(strcmp(b->name, "b") == 0 && b->dtype == DTYPE_BF16 && b->rank == 2);
    CHECK(b->shape[0] == 3 && b->shape[1] == 2 && b->bytes == 12);
    CHECK(b->offset == out.data_offset + 4);
    arena_release(&arena);
}

static void test_no_metadata_no_tensors(void)
{
    struct arena arena = {0};
    struct safetensors_header out;
    CHECK_OK(parse("{}", 0, &arena, &out));
    CHECK(out.n_entries == 0 && strcmp(out.format, "") == 0 && out.data_offset == 10);
    CHECK_OK(parse("{\"__metadata__\":{\"a\":\"b\"}}", 0, &arena, &out));
    CHECK(out.n_entries == 0 && strcmp(out.format, "") == 0);
    arena_release(&arena);
}

/* The file itself, before its header can be read. */
static void expect_bytes_refused(const void *data, size_t len, uint64_t file_bytes,
                                 const char *says)
{
    struct arena arena = {0};
    struct safetensors_header out;
    CHECK(safetensors_parse(span_of(data, len), file_bytes, FILE_NAME, &arena, &out, &err) ==
          SLUICE_E_FORMAT);
    expect_says(says);
    arena_release(&arena);
}

static void test_length(void)
{
    expect_bytes_refused(NULL, 0, 0, "0 bytes are too few");
    expect_bytes_refused("\2\0\0\0\0\0\0", 7, 7, "7 bytes are too few");
    expect_bytes_refused("\0\0\0\0\0\0\0\0", 8, 8, "the header is empty");
    expect_bytes_refused("\3\0\0\0\0\0\0\0{}", 10, 10,
                         "the header of 3 bytes ends 1 bytes past the end of the file");
    expect_bytes_refused("\2\0\0\0\0\0\0\0{}", 10, 9,
                         "the header of 2 bytes ends 1 bytes past the end of the file");
    expect_bytes_refused("\1\341\365\5\0\0\0\0{}", 10, UINT64_MAX,
                         "a header of 100000001 bytes is over the limit of 100000000");
    expect_bytes_refused("\0\341\365\5\0\0\0\0{}", 10, 10, "ends 99999998 bytes past the end");
    expect_bytes_refused("\377\377\377\377\377\377\377\377{}", 10, UINT64_MAX,
                         "18446744073709551615 bytes is over the limit");
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\n";
    expect_bytes_refused(lfs, sizeof lfs - 1, sizeof lfs - 1, "is a Git LFS pointer");
}

static void test_header_is_an_object_of_json(void)
{
    expect_refused("[]", 0, "the header is an array, but must be an object");
    expect_refused("\"a\"", 0, "the header is the string \"a\"");
    expect_refused("{\"a\": ", 0, "the header: value expected at byte 6 of it");
    expect_refused("{\"a\": NaN}", 0, "found NaN");
    expect_refused("{\"x\\u0000y\": {}}", 0, "\\u0000");
    expect_refused("{\"model.layers.10.mlp.gate.weight\": {}, "
                   "\"model.layers.10.mlp.gate.weight\": {}}",
                   0, "key 'model.layers.10.mlp.gate.weight' appears twice");
}

#define GOOD_FIELDS "\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]"

static void expect_accepted(const char *header, const char *name)
{
    struct arena arena = {0};
    struct safetensors_header out;
    CHECK(parse(header, 8, &arena, &out) == SLUICE_OK, "%s: %s", header, err.message);
    CHECK(out.n_entries == 1 && strcmp(out.entries[0].name, name) == 0);
    arena_release(&arena);
}

/* Other spellings of the same entry. */
static void test_json_as_it_may_be_written(void)
{
    expect_accepted("{\"a\\u002e\\ud83d\\ude00\\/\":{" GOOD_FIELDS "}}", "a.\xf0\x9f\x98\x80/");
    expect_accepted("{\"\xc3\xa9\":{" GOOD_FIELDS "}}", "\xc3\xa9");
    expect_accepted(" {\n\t\"a\" : { \"data_offsets\" : [ -0 , 8 ] ,\r \"shape\" : [ 8 ] , "
                    "\"d\\u0074ype\" : \"\\u0055\\u0038\" } } \n",
                    "a");
    expect_accepted("{\"a\":{\"x\":{\"k\":[1e5,-0.5,true,null,\"]}\"],\"m\":{}}," GOOD_FIELDS
                    ",\"y\":-9223372036854775808}}",
                    "a");
    expect_accepted("{\"__metadata__\":{\"form\\u0061t\":\"\"},\"\":{" GOOD_FIELDS "}}", "");
}

static void test_json_that_is_broken(void)
{
    static const struct {
        const char *header, *says;
    } cases[] = {
        {"{", "string expected at byte 1"},
        {"{} x", "text behind the value at byte 3"},
        {"{\"a\":{},}", "string expected at byte 8"},
        {"{\"a\":{}; }", "',' expected at byte 7"},
        {"{\"a\" {}}", "':' expected at byte 5"},
        {"{\"a\":[}", "value at byte 5 of it"},
        {"{\"a\":{\"dtype\":\"U8}}", "string without an end at byte"},
        {"{\"a\":{\"dtype\":\"\xc3\"}}", "is not UTF-8"},
        {"{\"a\":{\"dtype\":\"\\ud800\"}}", "bad escape"},
        {"{\"a\":{\"dtype\":\"\\u0000\"}}", "\\u0000"},
        {"{\"a\":{\"dtype\":\"\n\"}}", "control character"},
        {"{\"a\":{\"shape\":[08]}}", "value at byte 15 of it"},
        {"{\"a\":{\"shape\":[9223372036854775808]}}", "too big integer"},
        {"{\"a\":{\"shape\":[-9223372036854775809]}}", "too big negative integer"},
        {"{\"a\":{\"shape\":[1,]}}", "value expected at byte 17"},
        {"{\"a\":{\"shape\":[1 2]}}", "',' expected at byte 17"},
        {"{\"a\":{\"shape\":[-]}}", "value at byte 15 of it"},
        {"{\"a\":{\"x\":tru}}", "value at byte 10 of it"},
        {"{\"a\":{\"x\":1e999}}", "real number overflow"},
        {"{\"a\":{\"x\":[1:2]}}", "value at byte 10 of it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refused(cases[i].header, 8, cases[i].says);
}

static void test_keys_that_come_twice(void)
{
    static const char *const headers[] = {
        "{\"k\":{},\"\\u006b\":{}}",
        "{\"a\":{\"k\":1,\"k\":1}}",
        "{\"a\":{\"x\":[{\"k\":1,\"k\":1}]}}",
        "{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        expect_refused(headers[i], 8, "key 'k' appears twice");
    expect_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' appears twice");
    expect_refused("{\"a\":{" GOOD_FIELDS ",\"dtype\":\"U8\"}}", 8, "'dtype' appears twice");
    expect_refused("{\"a\":{" GOOD_FIELDS ",\"shape\":[8]}}", 8, "'shape' appears twice");
    expect_refused("{\"a\":{\"data_offsets\":3," GOOD_FIELDS "}}", 8,
                   "'data_offsets' appears twice");
}

/* The header itself and the entry are two of the 64 levels. */
static void test_nesting(void)
{
    char lists[200] = "", header[400];
    for (int i = 0; i < 62; i++) strcat(lists, "[");
    for (int i = 0; i < 62; i++) strcat(lists, "]");
    snprintf(header, sizeof header, "{\"a\":{\"x\":%s," GOOD_FIELDS "}}", lists);
    expect_accepted(header, "a");
    snprintf(header, sizeof header, "{\"a\":{\"x\":[%s]," GOOD_FIELDS "}}", lists);
    expect_refused(header, 8, "nested too deep");
    snprintf(header, sizeof header, "{\"a\":{\"shape\":[%s]}}", lists);
    expect_refused(header, 8, "nested too deep");
}

/* What is wrong with a tensor is said only of a header that can be read. */
static void test_broken_json_goes_before_broken_tensors(void)
{
    expect_refused("{\"a\":{\"dtype\":\"F4\"},\"b\":{}", 0, "',' expected");
    expect_refused("{\"a\":{\"dtype\":3},\"b\":7}", 0, "tensor 'a': dtype is no string");
    expect_refused("{\"__metadata__\":3,\"a\":7}", 0, "__metadata__ is 3");
}

static void test_metadata(void)
{
    expect_refused("{\"__metadata__\": []}", 0, "__metadata__ is an array, but must be an object");
    expect_refused("{\"__metadata__\": null}", 0, "__metadata__ is null, but must be an object");
    expect_refused("{\"__metadata__\": {\"format\": 3}}", 0, "__metadata__ entry 'format'");
    expect_refused("{\"__metadata__\": {\"total\": {}}}", 0, "__metadata__ entry 'total'");
}

static void test_names(void)
{
    expect_refused("{\"lm\\u001b[0m\": {}}", 0,
                   "tensor 'lm...': the name has a control character (byte 27)");
    expect_refused("{\"lm\\u007f\": {}}", 0, "control character (byte 127)");
    char header[400] = "{\"";
    memset(header + 2, 'n', 257);
    strcat(header, "\": {}}");
    expect_refused(header, 0, "nnn...': a name of 257 bytes is over the limit of 256");
    memmove(header + 2, header + 3, strlen(header + 3) + 1);
    expect_refused(header, 0, "nnn': dtype is missing");
}

static void test_dtype(void)
{
    expect_tensor_refused("7", "is no JSON object");
    expect_tensor_refused("{\"shape\":[2],\"data_offsets\":[0,8]}", "dtype is missing");
    expect_tensor_refused("{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}",
                          "dtype is no string");
    struct arena arena = {0};
    struct safetensors_header out;
    CHECK(parse("{\"a.weight\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, &arena,
                &out) == SLUICE_E_UNSUPPORTED);
    expect_says("tensor 'a.weight': dtype 'F4' is not known");
    arena_release(&arena);
}

static void test_shape(void)
{
    expect_tensor_refused("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}", "shape is missing");
    expect_tensor_refused("{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}",
                          "shape is no array");
    expect_tensor_refused("{\"dtype\":\"F32\",\"shape\":[1,-2],\"data_offsets\":[0,8]}",
                          "shape[1] is not an integer");
    expect_tensor_refused("{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}",
                          "shape[0] is not an integer");
    expect_tensor_refused("{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,8],\"data_offsets\":[0,8]}",
                          "shape has 9 dimensions, more than 8");
    expect_tensor_refused("{\"dtype\":\"F32\",\"shape\":[4611686018427387904],"
                          "\"data_offsets\":[0,0]}",
                          "shape[0] makes it larger than 2^64 bytes");
    expect_tensor_refused("{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],"
                          "\"data_offsets\":[0,0]}",
                          "shape[1] makes it larger than 2^64 bytes");
    expect_tensor_refused("{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4,0],"
                          "\"data_offsets\":[0,0]}",
                          "shape[1] makes it larger than 2^64 bytes");
}

static void test_rank_eight(void)
{
    struct arena arena = {0};
    struct safetensors_header out;
    CHECK_OK(parse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,2,1,1,1,1,4],\"data_offsets\":[0,8]}}",
                   8, &arena, &out));
    CHECK(out.n_entries == 1 && out.entries[0].rank == 8 && out.entries[0].shape[7] == 4);
    arena_release(&arena);
}

static void test_offsets(void)
{
    static const struct {
        const char *offsets, *says;
    } cases[] = {
        {"7", "data_offsets is not an array of two integers"},
        {"[0]", "data_offsets is not an array of two integers"},
        {"[0,8,8]", "data_offsets is not an array of two integers"},
        {"[0,8.0]", "data_offsets is not an array of two integers"},
        {"[\"0\",8]", "data_offsets is not an array of two integers"},
        {"{\"0\":0,\"1\":8}", "data_offsets is not an array of two integers"},
        {"[-8,0]", "data_offsets [-8, 0] is no range"},
        {"[8,0]", "data_offsets [8, 0] is no range"},
        {"[0,-9223372036854775808]", "data_offsets [0, -9223372036854775808] is no range"},
        {"[0,4]", "data_offsets [0, 4] span 4 bytes, but its shape and dtype F32 make 8"},
        {"[0,12]", "data_offsets [0, 12] span 12 bytes, but its shape and dtype F32 make 8"},
        {"[0,9223372036854775807]", "data_offsets [0, 9223372036854775807] span"},
        {"[9223372036854775799,9223372036854775807]", "9223372036854775799 bytes before it"},
        {"[1,9]", "1 bytes before it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char tensor[200];
        snprintf(tensor, sizeof tensor, "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":%s}",
                 cases[i].offsets);
        expect_tensor_refused(tensor, cases[i].says);
    }
    expect_tensor_refused("{\"dtype\":\"F32\",\"shape\":[2]}", "data_offsets is missing");
}

static void two_tensors(char *out, size_t cap, int begin_a, int end_a, int begin_b, int end_b)
{
    snprintf(out, cap,
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%d,%d]},"
             "\"b\":{\"dtype\":\"U8\",\"shape\":[%d],\"data_offsets\":[%d,%d]}}",
             end_a - begin_a, begin_a, end_a, end_b - begin_b, begin_b, end_b);
}

static void test_layout(void)
{
    char header[300], says[200];
    two_tensors(header, sizeof header, 0, 8, 4, 12);
    snprintf(says, sizeof says, "tensor 'b': its bytes from %zu on overlap those of tensor 'a'",
             8 + strlen(header) + 4);
    expect_refused(header, 12, says);
    two_tensors(header, sizeof header, 0, 8, 0, 8);
    expect_refused(header, 8, "tensor 'b': its bytes from");
    two_tensors(header, sizeof header, 0, 8, 4, 4);
    expect_refused(header, 8, "overlap those of tensor 'a'");
    two_tensors(header, sizeof header, 8, 16, 0, 6);
    expect_refused(header, 16, "tensor 'a': 2 bytes before it");
    two_tensors(header, sizeof header, 0, 8, 8, 16);
    snprintf(says, sizeof says, "3 bytes at the end of the file, from %zu on, belong to no tensor",
             8 + strlen(header) + 16);
    expect_refused(header, 19, says);
    expect_refused("{}", 1, "1 bytes at the end of the file");
}

static void test_truncated_file(void)
{
    char header[300];
    two_tensors(header, sizeof header, 0, 8, 8, 1000);
    expect_refused(header, 990, "tensor 'b': its bytes");
    expect_refused(header, 990, "; 10 bytes are missing");
    expect_refused(header, 5, "tensor 'a': its bytes");
    expect_refused(header, 5, "; 995 bytes are missing");
    expect_refused(header, 0, "; 1000 bytes are missing");
}

/* Only the header must be in memory. */
static void test_head_without_data(void)
{
    struct arena arena = {0};
    struct safetensors_header out;
    struct file_bytes f = safetensors_bytes(
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1099511627776],\"data_offsets\":[0,1099511627776]}}",
        0);
    CHECK_OK(safetensors_parse(span_of(f.data, f.len), f.len + 1099511627776u, FILE_NAME, &arena,
                               &out, &err));
    CHECK(out.n_entries == 1 && out.entries[0].bytes == 1099511627776u);
    free(f.data);
    arena_release(&arena);
}

static void test_many_tensors(void)
{
    enum { N = 100000, ROOM = 128 };
    char *header = malloc((size_t)N * ROOM);
    REQUIRE(header);
    size_t len = 0;
    /* In reverse, so that sorting has work. */
    for (int i = N - 1; i >= 0; i--)
        len += (size_t)snprintf(header + len, ROOM,
                                "%c\"model.layers.%d.mlp.experts.weight\":{\"dtype\":\"BF16\","
                                "\"shape\":[1,2],\"data_offsets\":[%d,%d]}",
                                len ? ',' : '{', i, 4 * i, 4 * i + 4);
    strcpy(header + len, "}");
    struct file_bytes f = safetensors_bytes(header, 0);
    struct arena arena = {0};
    struct safetensors_header out;
    CHECK_OK(
        safetensors_parse(span_of(f.data, f.len), f.len + 4 * N, FILE_NAME, &arena, &out, &err));
    CHECK(out.n_entries == N &&
          strcmp(out.entries[777].name, "model.layers.777.mlp.experts.weight") == 0);
    arena_release(&arena);
    free(f.data);
    free(header);
}

#define CASES(C)                                                                                   \
    C(entries)                                                                                     \
    C(no_metadata_no_tensors)                                                                      \
    C(length)                                                                                      \
    C(header_is_an_object_of_json)                                                                 \
    C(json_as_it_may_be_written)                                                                   \
    C(json_that_is_broken)                                                                         \
    C(keys_that_come_twice)                                                                        \
    C(nesting)                                                                                     \
    C(broken_json_goes_before_broken_tensors)                                                      \
    C(metadata)                                                                                    \
    C(names)                                                                                       \
    C(dtype)                                                                                       \
    C(shape)                                                                                       \
    C(rank_eight)                                                                                  \
    C(offsets)                                                                                     \
    C(layout)                                                                                      \
    C(truncated_file)                                                                              \
    C(head_without_data)                                                                           \
    C(many_tensors)
CHECK_MAIN(CASES)

/* GGUF headers: a good one key by key and tensor by tensor, then everything that can be wrong. */
#include <stdlib.h>

#include "check.h"
#include "format/gguf.h"
#include "gguf_bytes.h"

#define FILE_NAME "model.gguf"

static struct sluice_error err;

/* Parses f and frees its bytes when it is refused. */
static enum sluice_status parse(struct gguf_bytes *f, struct arena *arena, struct gguf_header *out)
{
    err.message[0] = '\0';
    return gguf_parse(span_of(f->data, f->len), f->len, FILE_NAME, arena, out, &err);
}

/* f, which is freed, is refused and the message says so. */
static void expect_refused(struct gguf_bytes *f, enum sluice_status code, const char *says)
{
    struct arena arena = {0};
    struct gguf_header out;
    enum sluice_status status = parse(f, &arena, &out);
    CHECK(status == code && err.code == code, "status %d for '%s': %s", status, says, err.message);
    CHECK(strncmp(err.message, FILE_NAME ": ", sizeof FILE_NAME + 1) == 0, "%s", err.message);
    CHECK(strstr(err.message, says) != NULL, "'%s' should say '%s'", err.message, says);
    CHECK(out.keys == NULL && out.by_key.slots == NULL);
    arena_release(&arena);
    free(f->data);
}

static void put_every_number(struct gguf_bytes *f)
{
    gguf_key(f, "u8", 0);
    gguf_put_int(f, 200, 1);
    gguf_key(f, "i8", 1);
    gguf_put_int(f, (uint64_t)-3, 1);
    gguf_key(f, "u16", 2);
    gguf_put_int(f, 60000, 2);
    gguf_key(f, "i16", 3);
    gguf_put_int(f, 30000, 2);
    gguf_key_u32(f, "u32", 4000000000u);
    gguf_key(f, "i32", 5);
    gguf_put_int(f, (uint64_t)-1, 4);
    gguf_key_f32(f, "f32", 0.5f);
    gguf_key_bool(f, "yes", 1);
    gguf_key(f, "u64", 10);
    gguf_put_int(f, UINT64_MAX, 8);
    gguf_key(f, "i64", 11);
    gguf_put_int(f, 1ull << 40, 8);
    gguf_key(f, "f64", 12);
    gguf_put_int(f, 0x3fd5555555555555ull, 8);
}

static void test_numbers(void)
{
    struct arena arena = {0};
    struct gguf_header h;
    struct gguf_bytes f = gguf_begin(3);
    put_every_number(&f);
    gguf_end(&f, 1, 0);
    REQUIRE(parse(&f, &arena, &h) == SLUICE_OK, "%s", err.message);
    CHECK(h.version == 3 && h.n_keys == 11 && h.alignment == 32 && h.n_tensors == 0);
    static const struct {
        const char *key;
        uint64_t value;
    } good[] = {{"u8", 200},         {"u16", 60000},      {"i16", 30000},
                {"u32", 4000000000}, {"u64", UINT64_MAX}, {"i64", 1ull << 40}};
    uint64_t n = 0;
    double x = 0;
    bool b = false;
    struct span s;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK(gguf_u64(gguf_find(&h, good[i].key), &n) && n == good[i].value, "%s", good[i].key);
    CHECK(!gguf_u64(gguf_find(&h, "i8"), &n) && !gguf_u64(gguf_find(&h, "i32"), &n));
    CHECK(!gguf_u64(gguf_find(&h, "f32"), &n) && !gguf_u64(gguf_find(&h, "yes"), &n));
    CHECK(gguf_f64(gguf_find(&h, "f32"), &x) && x == 0.5);
    CHECK(gguf_f64(gguf_find(&h, "f64"), &x) && x > 0.333 && x < 0.334);
    CHECK(gguf_f64(gguf_find(&h, "u16"), &x) && x == 60000);
    CHECK(gguf_bool(gguf_find(&h, "yes"), &b) && b && !gguf_bool(gguf_find(&h, "u8"), &b));
    CHECK(!gguf_string(gguf_find(&h, "u8"), &s) && gguf_find(&h, "none") == NULL);
    CHECK(!gguf_u64(NULL, &n) && !gguf_f64(NULL, &x) && !gguf_bool(NULL, &b));
    gguf_release(&h);
    arena_release(&arena);
    free(f.data);
}

static void test_strings_and_arrays(void)
{
    struct arena arena = {0};
    struct gguf_header h;
    struct gguf_bytes f = gguf_begin(2);
    gguf_key_string(&f, "name", "a\xc3\xa9");
    gguf_key_array(&f, "ints", 5, 3);
    for (uint64_t i = 7; i < 10; i++) gguf_put_int(&f, i, 4);
    gguf_key_array(&f, "words", 8, 2);
    gguf_put_string(&f, "");
    gguf_put_string(&f, "two");
    gguf_key_array(&f, "nested", 9, 2);
    gguf_put_int(&f, 0, 4);
    gguf_put_int(&f, 1, 8);
    gguf_put_int(&f, 42, 1);
    gguf_put_int(&f, 8, 4);
    gguf_put_int(&f, 0, 8);
    gguf_key_u32(&f, "last", 1);
    gguf_end(&f, 1, 0);
    REQUIRE(parse(&f, &arena, &h) == SLUICE_OK, "%s", err.message);
    struct span s;
    struct gguf_value item;
    uint64_t n;
    CHECK(h.version == 2);
    CHECK(gguf_string(gguf_find(&h, "name"), &s) && span_equal(s, span_str("a\xc3\xa9")));
    struct gguf_items ints = gguf_items(gguf_find(&h, "ints"));
    for (uint64_t i = 7; i < 10; i++)
        CHECK(gguf_items_next(&ints, &item) && gguf_u64(&item, &n) && n == i);
    CHECK(!gguf_items_next(&ints, &item));
    struct gguf_items words = gguf_items(gguf_find(&h, "words"));
    CHECK(gguf_items_next(&words, &item) && gguf_string(&item, &s) && s.len == 0);
    CHECK(gguf_items_next(&words, &item) && gguf_string(&item, &s) && s.len == 3);
    CHECK(!gguf_items_next(&words, &item));
    struct gguf_items nested = gguf_items(gguf_find(&h, "nested"));
    CHECK(gguf_items_next(&nested, &item) && item.type == GGUF_ARRAY && item.n_items == 1);
    struct gguf_items inner = gguf_items(&item);
    CHECK(gguf_items_next(&inner, &item) && gguf_u64(&item, &n) && n == 42);
    CHECK(gguf_items_next(&nested, &item) && item.item_type == GGUF_STRING && item.n_items == 0);
    CHECK(!gguf_items_next(&nested, &item));
    CHECK(gguf_u64(gguf_find(&h, "last"), &n) && n == 1);
    struct gguf_items none = gguf_items(gguf_find(&h, "last"));
    CHECK(!gguf_items_next(&none, &item));
    gguf_release(&h);
    arena_release(&arena);
    free(f.data);
}

static void test_tensors(void)
{
    struct arena arena = {0};
    struct gguf_header h;
    struct gguf_bytes f = gguf_begin(3);
    gguf_key_u32(&f, "general.alignment", 64);
    gguf_tensor(&f, "late", GGUF_DIMS(512, 3), 14, 128);
    gguf_tensor(&f, "early", GGUF_DIMS(4, 3, 2), 0, 0);
    gguf_end(&f, 64, 128 + 6 * 210);
    REQUIRE(parse(&f, &arena, &h) == SLUICE_OK, "%s", err.message);
    REQUIRE(h.n_tensors == 2 && h.alignment == 64 && h.data_offset % 64 == 0);
    const struct tensor_entry *a = &h.tensors[0], *b = &h.tensors[1];
    CHECK(strcmp(a->name, "early") == 0 && a->dtype == DTYPE_F32 && a->rank == 3);
    CHECK(a->shape[0] == 2 && a->shape[1] == 3 && a->shape[2] == 4 && a->bytes == 96);
    CHECK(a->offset == h.data_offset);
    CHECK(strcmp(b->name, "late") == 0 && b->dtype == DTYPE_Q6_K && b->rank == 2);
    CHECK(b->shape[0] == 3 && b->shape[1] == 512 && b->bytes == 6 * 210);
    CHECK(b->offset == h.data_offset + 128);
    gguf_release(&h);
    arena_release(&arena);
    free(f.data);
}

static void test_version_and_magic(void)
{
    struct gguf_bytes f = gguf_begin(1);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_UNSUPPORTED, "is GGUF version 1; versions 2 and 3 are read");
    f = gguf_begin(4);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_UNSUPPORTED, "version 4");
    f = gguf_begin(0x03000000);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_UNSUPPORTED, "big-endian");
    f = gguf_begin(3);
    gguf_end(&f, 1, 0);
    f.data[0] = 'g';
    expect_refused(&f, SLUICE_E_FORMAT, "does not begin with 'GGUF'");
    f = gguf_begin(3);
    f.len = 0;
    expect_refused(&f, SLUICE_E_FORMAT, "does not begin with 'GGUF'");
}

static void test_counts(void)
{
    struct gguf_bytes f = gguf_begin(3);
    f.n_keys = 1ull << 60;
    gguf_end(&f, 1, 100);
    expect_refused(&f, SLUICE_E_FORMAT, "1152921504606846976 keys cannot be in a file");
    f = gguf_begin(3);
    f.n_tensors = UINT64_MAX;
    gguf_end(&f, 1, 100);
    expect_refused(&f, SLUICE_E_FORMAT, "18446744073709551615 tensors cannot be");
    f = gguf_begin(3);
    gguf_end(&f, 1, 0);
    f.len = 12;
    expect_refused(&f, SLUICE_E_FORMAT, "ends in the middle of the counts");
}

static void test_values(void)
{
    struct gguf_bytes f = gguf_begin(3);
    gguf_key(&f, "odd", 13);
    gguf_end(&f, 1, 100);
    expect_refused(&f, SLUICE_E_FORMAT, "key 'odd': the value (type 13, offset 39) is of a type");
    f = gguf_begin(3);
    gguf_key_bool(&f, "maybe", 2);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_FORMAT, "key 'maybe': the value (type 7, offset 41) is a bool of");
    f = gguf_begin(3);
    gguf_key_array(&f, "bools", 7, 2);
    gguf_put_int(&f, 0x0301, 2);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_FORMAT, "is a bool of neither 0 nor 1");
    f = gguf_begin(3);
    gguf_key_array(&f, "items", 77, 1);
    gguf_end(&f, 1, 100);
    expect_refused(&f, SLUICE_E_FORMAT, "is an array of a type that is not known");
    f = gguf_begin(3);
    gguf_key_array(&f, "huge", 12, UINT64_MAX / 4);
    gguf_end(&f, 1, 100);
    expect_refused(&f, SLUICE_E_FORMAT, "ends past the end of the file");
    f = gguf_begin(3);
    gguf_key_array(&f, "words", 8, UINT64_MAX);
    gguf_end(&f, 1, 100);
    expect_refused(&f, SLUICE_E_FORMAT, "ends past the end of the file");
    f = gguf_begin(3);
    gguf_key(&f, "text", 8);
    gguf_put_int(&f, UINT64_MAX, 8);
    gguf_end(&f, 1, 100);
    expect_refused(&f, SLUICE_E_FORMAT, "key 'text': the value (type 8, offset 40) ends past");
    f = gguf_begin(3);
    gguf_key(&f, "deep", 9);
    for (int i = 0; i < 100; i++) {
        gguf_put_int(&f, 9, 4);
        gguf_put_int(&f, 1, 8);
    }
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_FORMAT, "nested deeper than 8 levels");
}

static void test_names(void)
{
    struct gguf_bytes f = gguf_begin(3);
    gguf_key_u32(&f, "twice", 1);
    gguf_key_u32(&f, "twice", 1);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_FORMAT, "key 'twice' is there twice");
    f = gguf_begin(3);
    gguf_key_u32(&f, "", 1);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_FORMAT, "key 0 (before offset 32) has an empty name");
    f = gguf_begin(3);
    gguf_key_u32(&f, "a\nb", 1);
    gguf_end(&f, 1, 0);
    expect_refused(&f, SLUICE_E_FORMAT, "a control character in its name");
    f = gguf_begin(3);
    gguf_tensor(&f, "t", GGUF_DIMS(4), 0, 0);
    gguf_tensor(&f, "t", GGUF_DIMS(4), 0, 32);
    gguf_end(&f, 32, 48);
    expect_refused(&f, SLUICE_E_FORMAT, "tensor 't': it is listed twice");
    char name[300];
    memset(name, 'x', sizeof name);
    name[257] = '\0';
    f = gguf_begin(3);
    gguf_tensor(&f, name, GGUF_DIMS(4), 0, 0);
    gguf_end(&f, 32, 16);
    expect_refused(&f, SLUICE_E_FORMAT, "tensor 0 (before offset 289) has a name that is too long");
}

static void test_alignment(void)
{
    static const uint32_t wrong[] = {0, 3, 48, 1u << 21};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct gguf_bytes f = gguf_begin(3);
        gguf_key_u32(&f, "general.alignment", wrong[i]);
        gguf_end(&f, 1, 0);
        expect_refused(&f, SLUICE_E_FORMAT, "must be a power of two up to 1048576");
    }
    struct gguf_bytes f = gguf_begin(3);
    gguf_tensor(&f, "t", GGUF_DIMS(4), 0, 16);
    gguf_end(&f, 32, 32);
    expect_refused(&f, SLUICE_E_FORMAT, "its offset 16 is no multiple of the alignment 32");
}

/* One tensor "t". */
static void expect_tensor_refused(const uint64_t *dims, uint32_t type, uint64_t offset,
                                  size_t n_data, enum sluice_status code, const char *says)
{
    struct gguf_bytes f = gguf_begin(3);
    gguf_tensor(&f, "t", dims, type, offset);
    gguf_end(&f, 32, n_data);
    expect_refused(&f, code, says);
}

static void test_refused_tensors(void)
{
    expect_tensor_refused(GGUF_DIMS(4), 4, 0, 64, SLUICE_E_UNSUPPORTED,
                          "tensor 't': its type has the number 4,");
    expect_tensor_refused(GGUF_DIMS(256), 139, 0, 512, SLUICE_E_UNSUPPORTED, "number 139,");
    expect_tensor_refused(GGUF_DIMS(255), 12, 0, 144, SLUICE_E_FORMAT,
                          "rows of 255 are no whole number of blocks of 256, as its type Q4_K has");
    expect_tensor_refused(GGUF_DIMS(16, 2), 2, 0, 18, SLUICE_E_FORMAT, "blocks of 32");
    expect_tensor_refused(GGUF_DIMS(4), 0, 0, 15, SLUICE_E_FORMAT,
                          "its 16 bytes at offset 0 of the data end outside the file of 79 bytes");
    expect_tensor_refused(GGUF_DIMS(4), 0, 32, 40, SLUICE_E_FORMAT, "end outside the file");
    expect_tensor_refused(GGUF_DIMS(4), 0, UINT64_MAX - 31, 40, SLUICE_E_FORMAT,
                          "end outside the file");
    expect_tensor_refused(GGUF_DIMS(1ull << 32, 1ull << 32), 0, 0, 40, SLUICE_E_FORMAT,
                          "larger than 2^64 bytes");
    expect_tensor_refused(GGUF_DIMS(1ull << 63), 0, 0, 40, SLUICE_E_FORMAT, "larger than 2^64");
    expect_tensor_refused(GGUF_DIMS(1, 1, 1, 1, 1), 0, 0, 40, SLUICE_E_FORMAT,
                          "5 dimensions, not 1 to 4");
    expect_tensor_refused(((const uint64_t[]){0}), 0, 0, 40, SLUICE_E_FORMAT, "0 dimensions");
    struct gguf_bytes f = gguf_begin(3);
    gguf_tensor(&f, "t", GGUF_DIMS(4, 7), 0, 0);
    f.data[f.len - 20] = 0;
    gguf_end(&f, 32, 112);
    expect_refused(&f, SLUICE_E_FORMAT, "dimension 1 is 0");
    f = gguf_begin(3);
    gguf_tensor(&f, "second", GGUF_DIMS(8), 0, 32);
    gguf_tensor(&f, "first", GGUF_DIMS(9), 0, 0);
    gguf_end(&f, 32, 64);
    expect_refused(&f, SLUICE_E_FORMAT, "overlap those of tensor 'first'");
}

/* However little of a file has arrived, what is refused is refused without reading past it. */
static void test_every_cut(void)
{
    struct gguf_bytes f = gguf_begin(3);
    put_every_number(&f);
    gguf_key_array(&f, "words", 8, 2);
    gguf_put_string(&f, "a");
    gguf_put_string(&f, "two");
    gguf_tensor(&f, "t", GGUF_DIMS(256, 2), 12, 0);
    gguf_end(&f, 32, 288);
    for (size_t len = 0; len <= f.len; len++) {
        struct arena arena = {0};
        struct gguf_header h;
        uint8_t *exact = malloc(len ? len : 1);
        if (!exact) abort();
        memcpy(exact, f.data, len);
        enum sluice_status status =
            gguf_parse(span_of(exact, len), len, FILE_NAME, &arena, &h, &err);
        CHECK((status == SLUICE_OK) == (len == f.len), "%zu of %zu bytes", len, f.len);
        gguf_release(&h);
        arena_release(&arena);
        free(exact);
    }
    free(f.data);
}

#define CASES(C)                                                                                   \
    C(numbers)                                                                                     \
    C(strings_and_arrays)                                                                          \
    C(tensors)                                                                                     \
    C(version_and_magic)                                                                           \
    C(counts)                                                                                      \
    C(values)                                                                                      \
    C(names)                                                                                       \
    C(alignment)                                                                                   \
    C(refused_tensors)                                                                             \
    C(every_cut)
CHECK_MAIN(CASES)

/* The table of element types: sizes, names there and back. */
#include "check.h"
#include "format/dtype.h"

static void test_sizes(void)
{
    CHECK(dtype_bytes(DTYPE_BOOL) == 1 && dtype_bytes(DTYPE_F8_E4M3) == 1);
    CHECK(dtype_bytes(DTYPE_BF16) == 2 && dtype_bytes(DTYPE_F16) == 2);
    CHECK(dtype_bytes(DTYPE_U32) == 4 && dtype_bytes(DTYPE_F32) == 4);
    CHECK(dtype_bytes(DTYPE_F64) == 8 && dtype_bytes(DTYPE_I64) == 8);
    CHECK(dtype_block(DTYPE_F64) == 1 && dtype_block(DTYPE_Q8_0) == 32);
    CHECK(dtype_bytes(DTYPE_Q8_0) == 34 && dtype_block(DTYPE_Q6_K) == 256);
}

static void test_names_there_and_back(void)
{
    for (int i = 0; i < DTYPE_COUNT; i++) {
        enum dtype found = DTYPE_COUNT;
        const char *name = dtype_name((enum dtype)i);
        if (dtype_block((enum dtype)i) > 1)
            CHECK(!dtype_from_name(span_str(name), &found), "%s", name);
        else
            CHECK(dtype_from_name(span_str(name), &found) && found == (enum dtype)i, "%s", name);
    }
    CHECK(strcmp(dtype_name(DTYPE_BF16), "BF16") == 0);
}

static void test_unknown_names(void)
{
    static const char *const names[] = {"", "F", "F32 ", "f32", "BF1", "F128"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        enum dtype found = DTYPE_I8;
        CHECK(!dtype_from_name(span_str(names[i]), &found), "'%s'", names[i]);
        CHECK(found == DTYPE_I8);
    }
}

static void test_numbers_of_gguf(void)
{
    enum dtype found = DTYPE_I8;
    CHECK(dtype_from_gguf(0, &found) && found == DTYPE_F32);
    CHECK(dtype_from_gguf(1, &found) && found == DTYPE_F16);
    CHECK(dtype_from_gguf(30, &found) && found == DTYPE_BF16);
    CHECK(dtype_from_gguf(23, &found) && found == DTYPE_IQ4_XS);
    CHECK(dtype_from_gguf(39, &found) && found == DTYPE_MXFP4);
    static const uint32_t others[] = {4, 5, 9, 15, 24, 31, 36, 40, 97, 133, UINT32_MAX};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        CHECK(!dtype_from_gguf(others[i], &found) && found == DTYPE_MXFP4, "%u", others[i]);
}

#define CASES(C)                                                                                   \
    C(sizes)                                                                                       \
    C(names_there_and_back)                                                                        \
    C(unknown_names)                                                                               \
    C(numbers_of_gguf)
CHECK_MAIN(CASES)

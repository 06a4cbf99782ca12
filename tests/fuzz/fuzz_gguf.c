/*
 * Any bytes as a GGUF file. What is accepted has values that can be walked to the end and tensors
 * that lie in the file, one behind the other.
 */
#include "base/bits.h"
#include "format/gguf.h"
#include "fuzz.h"

static uint64_t sum_bytes(struct span s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s.len; i++) sum += s.data[i];
    return sum;
}

/* Reads all that a value holds. */
static void walk(const struct gguf_value *value, int depth)
{
    uint64_t n;
    double x;
    bool b;
    struct span s;
    FUZZ_CHECK(depth <= GGUF_MAX_NESTING && value->type < GGUF_TYPE_COUNT);
    (void)gguf_u64(value, &n);
    if (gguf_f64(value, &x)) FUZZ_CHECK(x - x == 0);
    (void)gguf_bool(value, &b);
    if (gguf_string(value, &s)) FUZZ_CHECK(sum_bytes(s) <= 255 * (uint64_t)s.len);
    struct gguf_items items = gguf_items(value);
    struct gguf_value item;
    uint64_t count = 0;
    while (gguf_items_next(&items, &item)) {
        walk(&item, depth + 1);
        count++;
    }
    FUZZ_CHECK(value->type != GGUF_ARRAY || count == value->n_items);
}

static void promise_tensors(const struct gguf_header *h, uint64_t file_bytes)
{
    uint64_t end = h->data_offset;
    for (size_t i = 0; i < h->n_tensors; i++) {
        const struct tensor_entry *t = &h->tensors[i];
        FUZZ_CHECK(t->name && (unsigned)t->dtype < DTYPE_COUNT);
        FUZZ_CHECK(t->rank >= 1 && t->rank <= GGUF_MAX_RANK);
        FUZZ_CHECK((t->offset - h->data_offset) % h->alignment == 0);
        FUZZ_CHECK(t->offset >= end && t->offset <= file_bytes);
        FUZZ_CHECK(t->bytes > 0 && t->bytes <= file_bytes - t->offset);
        uint64_t n = 1, blocks = t->bytes / dtype_bytes(t->dtype);
        for (uint32_t j = 0; j < t->rank; j++) FUZZ_CHECK(mul_u64(n, t->shape[j], &n));
        FUZZ_CHECK(n == blocks * dtype_block(t->dtype) && t->bytes % dtype_bytes(t->dtype) == 0);
        end = t->offset + t->bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    struct gguf_header header;
    struct sluice_error err = {0};
    enum sluice_status status =
        gguf_parse(span_of(data, size), size, "fuzz.gguf", &arena, &header, &err);
    if (status == SLUICE_OK) {
        promise_tensors(&header, size);
        for (size_t i = 0; i < header.n_keys; i++) walk(&header.keys[i].value, 0);
    } else {
        FUZZ_CHECK(err.code == status && err.message[0] != '\0');
    }
    gguf_release(&header);
    arena_release(&arena);
    return 0;
}

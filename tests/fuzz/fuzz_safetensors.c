/*
 * Any bytes as a safetensors file, and as a header before DATA_BYTES of data. What is accepted
 * describes tensors that fill the data exactly.
 */
#include <string.h>

#include "base/bits.h"
#include "format/safetensors.h"
#include "fuzz.h"

enum { LENGTH_BYTES = 8, DATA_BYTES = 16 };

static void promise_layout(const struct safetensors_header *header, uint64_t file_bytes)
{
    FUZZ_CHECK(header->format != NULL);
    uint64_t end = header->data_offset;
    for (size_t i = 0; i < header->n_entries; i++) {
        const struct tensor_entry *entry = &header->entries[i];
        FUZZ_CHECK(entry->name && (unsigned)entry->dtype < DTYPE_COUNT);
        FUZZ_CHECK(entry->rank <= TENSOR_MAX_RANK);
        FUZZ_CHECK(entry->offset == end && end <= file_bytes && entry->bytes <= file_bytes - end);
        uint64_t bytes = dtype_bytes(entry->dtype);
        for (uint32_t j = 0; j < entry->rank; j++)
            FUZZ_CHECK(mul_u64(bytes, entry->shape[j], &bytes));
        FUZZ_CHECK(bytes == entry->bytes);
        end += entry->bytes;
    }
    FUZZ_CHECK(end == file_bytes);
}

static void parse(struct span head, uint64_t file_bytes)
{
    struct arena arena = {0};
    struct safetensors_header header;
    struct sluice_error err = {0};
    enum sluice_status status =
        safetensors_parse(head, file_bytes, "fuzz.safetensors", &arena, &header, &err);
    if (status == SLUICE_OK)
        promise_layout(&header, file_bytes);
    else
        FUZZ_CHECK(err.code == status && err.message[0] != '\0');
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(span_of(data, size), size);

    uint8_t *file = malloc(LENGTH_BYTES + size);
    if (!file) return 0;
    for (int i = 0; i < LENGTH_BYTES; i++) file[i] = (uint8_t)((uint64_t)size >> (8 * i));
    if (size) memcpy(file + LENGTH_BYTES, data, size);
    parse(span_of(file, LENGTH_BYTES + size), LENGTH_BYTES + size + DATA_BYTES);
    free(file);
    return 0;
}

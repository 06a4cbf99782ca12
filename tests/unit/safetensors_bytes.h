/* Safetensors files made of a header text and data, right or wrong on purpose. */
#ifndef TESTS_SAFETENSORS_BYTES_H
#define TESTS_SAFETENSORS_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct file_bytes {
    uint8_t *data; /* free it */
    size_t len;
};

/* The header's length, the header, and n_data bytes that count 0, 1, ... 255, 0, ... */
static inline struct file_bytes safetensors_bytes(const char *header, size_t n_data)
{
    size_t n = strlen(header);
    struct file_bytes f = {.data = malloc(8 + n + n_data), .len = 8 + n + n_data};
    if (!f.data) abort();
    for (int i = 0; i < 8; i++) f.data[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(f.data + 8, header, n);
    for (size_t i = 0; i < n_data; i++) f.data[8 + n + i] = (uint8_t)i;
    return f;
}

#endif

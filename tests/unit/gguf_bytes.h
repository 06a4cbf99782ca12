/*
 * A writer of GGUF files, right or wrong on purpose: keys, then tensors, whose data are bytes that
 * count 0, 1, ... 255, 0, ... unless given. Counts are patched at the end.
 */
#ifndef TESTS_GGUF_BYTES_H
#define TESTS_GGUF_BYTES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct gguf_bytes {
    uint8_t *data; /* free it */
    size_t len, cap;
    uint64_t n_keys, n_tensors;
    size_t directory_end;
};

static inline void gguf_put(struct gguf_bytes *f, const void *bytes, size_t n)
{
    if (f->len + n > f->cap) {
        f->cap = 2 * (f->len + n) + 256;
        f->data = realloc(f->data, f->cap);
        if (!f->data) abort();
    }
    if (n) memcpy(f->data + f->len, bytes, n);
    f->len += n;
}

static inline void gguf_put_int(struct gguf_bytes *f, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(v >> 8 * i);
        gguf_put(f, &byte, 1);
    }
}

static inline void gguf_put_string(struct gguf_bytes *f, const char *s)
{
    gguf_put_int(f, strlen(s), 8);
    gguf_put(f, s, strlen(s));
}

static inline struct gguf_bytes gguf_begin(uint32_t version)
{
    struct gguf_bytes f = {0};
    gguf_put(&f, "GGUF", 4);
    gguf_put_int(&f, version, 4);
    gguf_put_int(&f, 0, 8);
    gguf_put_int(&f, 0, 8);
    return f;
}

/* The name and type of a key; its value follows. */
static inline void gguf_key(struct gguf_bytes *f, const char *name, uint32_t type)
{
    gguf_put_string(f, name);
    gguf_put_int(f, type, 4);
    f->n_keys++;
}

static inline void gguf_key_u32(struct gguf_bytes *f, const char *name, uint32_t v)
{
    gguf_key(f, name, 4);
    gguf_put_int(f, v, 4);
}

static inline void gguf_key_f32(struct gguf_bytes *f, const char *name, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    gguf_key(f, name, 6);
    gguf_put_int(f, bits, 4);
}

static inline void gguf_key_bool(struct gguf_bytes *f, const char *name, int v)
{
    gguf_key(f, name, 7);
    gguf_put_int(f, (uint64_t)v, 1);
}

static inline void gguf_key_string(struct gguf_bytes *f, const char *name, const char *v)
{
    gguf_key(f, name, 8);
    gguf_put_string(f, v);
}

/* An array's head; n items follow. */
static inline void gguf_key_array(struct gguf_bytes *f, const char *name, uint32_t type, uint64_t n)
{
    gguf_key(f, name, 9);
    gguf_put_int(f, type, 4);
    gguf_put_int(f, n, 8);
}

/* dims, fastest first, end with 0. */
static inline void gguf_tensor(struct gguf_bytes *f, const char *name, const uint64_t *dims,
                               uint32_t type, uint64_t offset)
{
    uint32_t rank = 0;
    while (dims[rank]) rank++;
    gguf_put_string(f, name);
    gguf_put_int(f, rank, 4);
    for (uint32_t i = 0; i < rank; i++) gguf_put_int(f, dims[i], 8);
    gguf_put_int(f, type, 4);
    gguf_put_int(f, offset, 8);
    f->n_tensors++;
}

#define GGUF_DIMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

/* Fills in the counts, and adds the padding and n_data bytes. */
static inline void gguf_end(struct gguf_bytes *f, uint32_t alignment, size_t n_data)
{
    for (int i = 0; i < 8; i++) f->data[8 + i] = (uint8_t)(f->n_tensors >> 8 * i);
    for (int i = 0; i < 8; i++) f->data[16 + i] = (uint8_t)(f->n_keys >> 8 * i);
    f->directory_end = f->len;
    while (f->len % alignment) gguf_put_int(f, 0, 1);
    for (size_t i = 0; i < n_data; i++) gguf_put_int(f, i & 0xff, 1);
}

#endif

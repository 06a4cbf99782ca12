/*
 * The header of a safetensors file (https://huggingface.co/docs/safetensors): eight bytes of
 * length, a JSON object of tensors, then the data. Pure: works on bytes, reads no file.
 */
#ifndef SLUICE_FORMAT_SAFETENSORS_H
#define SLUICE_FORMAT_SAFETENSORS_H

#include "base/arena.h"
#include "base/err.h"
#include "format/tensor_entry.h"

struct safetensors_header {
    struct tensor_entry *entries; /* in order of offset */
    size_t n_entries;
    const char *format; /* __metadata__.format ("pt", "mlx"), or "" */
    uint64_t data_offset;
};

/*
 * Parses the header. head holds the first bytes of a file of file_bytes (at least the whole header;
 * more is ignored). Entries live in arena. Checks that every tensor lies in the file, that its
 * bytes equal shape x dtype, that no two overlap and that names are unique. Errors: FORMAT,
 * UNSUPPORTED (unknown dtype), NOMEM; messages name file and tensor.
 */
enum sluice_status safetensors_parse(struct span head, uint64_t file_bytes, const char *file,
                                     struct arena *arena, struct safetensors_header *out,
                                     struct sluice_error *err);

#endif

/*
 * An opened model: the JSON files and safetensors files of a folder, or GGUF files; weights mapped
 * read-only, and one directory of all tensors. Knows files and names, not what a tensor means.
 */
#ifndef SLUICE_STORE_CHECKPOINT_H
#define SLUICE_STORE_CHECKPOINT_H

#include "base/arena.h"
#include "base/map.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "io/file.h"

struct tensor {
    const char *name;
    enum dtype dtype;
    uint32_t rank;
    uint64_t shape[TENSOR_MAX_RANK];
    const uint8_t *data; /* mapped; any alignment */
    uint64_t bytes;
    uint32_t file;   /* index into checkpoint.files */
    uint64_t offset; /* in that file */
};

struct checkpoint {
    struct arena arena;
    char *path;             /* the folder, or the GGUF file */
    struct file_map *files; /* weight files, sorted by name */
    size_t n_files;
    struct tensor *tensors; /* by file, then offset */
    size_t n_tensors;
    struct map by_name;
    bool any_mlx;              /* some file says format "mlx" */
    json_t *config;            /* config.json; NULL with GGUF */
    json_t *generation_config; /* generation_config.json, NULL when absent */
    struct gguf_header *gguf;  /* [n_files], the first has the metadata; NULL: safetensors */
};

/*
 * Opens the model at path. A GGUF file, any part of a split one, or a folder without safetensors
 * but with GGUF files of one model: all its parts. Else a folder: config.json,
 * generation_config.json when there, and the weights: model.safetensors.index.json with the shards
 * it names, else model.safetensors, else every
 * *.safetensors in the folder (reference.safetensors excepted when others exist). Symbolic links
 * are followed. The index is checked against the headers both ways. Errors: NOT_FOUND, FORMAT,
 * MISMATCH, UNSUPPORTED, IO, NOMEM; on error *cp is released.
 */
enum sluice_status checkpoint_open(struct checkpoint *cp, const char *path,
                                   struct sluice_error *err);
void checkpoint_release(struct checkpoint *cp);

/* The tensor of that name, or NULL. */
const struct tensor *checkpoint_find(const struct checkpoint *cp, const char *name);

/*
 * The same. near: the number of a tensor; it costs little to find that one or the next, as parts
 * of a matrix and of an expert mostly lie. It becomes the number of the one found.
 */
const struct tensor *checkpoint_find_near(const struct checkpoint *cp, const char *name,
                                          size_t *near);

/* All of the tensor is read next, and nothing around it: see file_want. */
void checkpoint_want(const struct tensor *tensor);

/* The tensor that the mapped byte at data belongs to, or NULL. */
const struct tensor *checkpoint_tensor_at(const struct checkpoint *cp, const uint8_t *data);

/* Base name of the file a tensor is in. */
const char *checkpoint_file_name(const struct checkpoint *cp, const struct tensor *tensor);

#endif

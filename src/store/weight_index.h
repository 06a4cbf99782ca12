/* model.safetensors.index.json: which file of a folder holds which tensor. */
#ifndef SLUICE_STORE_WEIGHT_INDEX_H
#define SLUICE_STORE_WEIGHT_INDEX_H

#include "base/map.h"
#include "store/shards.h"

struct weight_index_entry {
    struct span tensor;
    const char *file; /* base name, in the arena */
};

/* Zero-initialise. */
struct weight_index {
    struct weight_index_entry *items; /* in the order of the text */
    size_t n, cap;
    struct map by_tensor; /* name -> place in items; empty before weight_index_map() */
};

/*
 * Reads text, which outlives *index as arena does. *shards becomes the files that it names, each
 * once. That no tensor is there twice is not known before weight_index_map(), so files that are
 * missing or wrong are told first. Errors: FORMAT (no JSON, no weight_map, an empty one, or a value
 * that is not the name of a safetensors file of the folder), NOMEM; the caller releases both then
 * too.
 */
enum sluice_status weight_index_parse(struct weight_index *index, struct shards *shards,
                                      struct span text, struct arena *arena,
                                      struct sluice_error *err);
/*
 * Fills by_tensor of what was read from text. Errors: FORMAT (a tensor is there twice), NOMEM.
 */
enum sluice_status weight_index_map(struct weight_index *index, struct span text,
                                    struct sluice_error *err);
void weight_index_release(struct weight_index *index);

#endif

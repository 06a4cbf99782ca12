/* Which files of a model folder hold its weights. Knows names only; opens no file of weights. */
#ifndef SLUICE_STORE_SHARDS_H
#define SLUICE_STORE_SHARDS_H

#include "base/arena.h"
#include "base/err.h"
#include "format/json.h"

#define SHARDS_INDEX_NAME "model.safetensors.index.json"

struct shards {
    char **items; /* base names, sorted; strings in the arena */
    size_t n, cap;
};

/*
 * The shards that the weight_map of an index names, each once. Errors: FORMAT (an entry that is no
 * string, or names something that is no safetensors file of the folder), NOMEM.
 */
enum sluice_status shards_from_index(struct shards *shards, json_t *weight_map, struct arena *arena,
                                     struct sluice_error *err);

/*
 * The weight files of a folder without an index: model.safetensors, or else every *.safetensors
 * but reference.safetensors, which counts only when it is alone. Hidden files do not count. Errors:
 * NOT_FOUND (none, or a part of "name-00001-of-00003.safetensors" is missing), IO, NOMEM.
 */
enum sluice_status shards_from_folder(struct shards *shards, const char *folder,
                                      struct arena *arena, struct sluice_error *err);

void shards_release(struct shards *shards);

#endif

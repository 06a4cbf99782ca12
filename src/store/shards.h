/* Which files of a model folder hold its weights. Knows names only; opens no file of weights. */
#ifndef SLUICE_STORE_SHARDS_H
#define SLUICE_STORE_SHARDS_H

#include "base/arena.h"
#include "base/err.h"

#define SHARDS_INDEX_NAME "model.safetensors.index.json"

struct shards {
    char **items; /* base names, sorted; strings in the arena */
    size_t n, cap;
};

/* True for a *.safetensors file of the folder itself: an index must not lead anywhere else. */
bool shards_is_plain_name(const char *name);
/* Adds a copy of name. NOMEM. */
enum sluice_status shards_add(struct shards *shards, const char *name, struct arena *arena,
                              struct sluice_error *err);
void shards_sort(struct shards *shards);

/*
 * The weight files of a folder without an index: model.safetensors, or else every *.safetensors
 * but reference.safetensors, which counts only when it is alone. Hidden files do not count. Errors:
 * NOT_FOUND (none, or a part of "name-00001-of-00003.safetensors" is missing), IO, NOMEM.
 */
enum sluice_status shards_from_folder(struct shards *shards, const char *folder,
                                      struct arena *arena, struct sluice_error *err);

void shards_release(struct shards *shards);

#endif

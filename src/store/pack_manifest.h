/*
 * The manifest of a packed store: which model it was made of, its shards, and a checksum for each
 * expert and each other tensor. It is written after every shard, so it also says how far packing
 * has come. Knows no model: layers, experts and names only.
 */
#ifndef SLUICE_STORE_PACK_MANIFEST_H
#define SLUICE_STORE_PACK_MANIFEST_H

#include "base/arena.h"
#include "base/map.h"
#include "store/checksum.h"
#include "store/expert_extents.h"

#define PACK_MANIFEST_NAME "sluice.pack.json"

struct pack_expert {
    uint32_t layer, expert;
    struct checksum sum;         /* of its parts, one behind the other */
    uint32_t part[EXPERT_PARTS]; /* the low bits of each part's own: they tell which is damaged */
};

struct pack_tensor {
    const char *name;
    struct checksum sum;
};

/* A shard that is complete. */
struct pack_shard {
    const char *name; /* of the file in the folder */
    uint64_t bytes;
    struct pack_expert *experts; /* ascending by layer, then expert */
    size_t n_experts;
    struct pack_tensor *tensors;
    size_t n_tensors;
};

/* A weight file of the model that is packed, as it was when packing began. */
struct pack_source {
    const char *name;
    uint64_t bytes;
    int64_t modified_ns;
};

struct pack_manifest {
    struct arena arena; /* holds everything below */
    struct checksum fingerprint;
    uint64_t shard_bytes; /* most bytes of weights in a shard */
    struct pack_source *sources;
    size_t n_sources;
    struct pack_shard *shards;
    size_t n_shards;
    /* copies from all shards, for the functions that find; made by manifest_read */
    struct pack_expert *experts; /* sorted */
    size_t n_experts;
    struct pack_tensor *tensors;
    struct map by_name;
};

/*
 * Reads the manifest of a folder. Errors: NOT_FOUND (there is none), FORMAT, UNSUPPORTED (a later
 * version), IO, NOMEM; *m is then empty.
 */
enum sluice_status manifest_read(struct pack_manifest *m, const char *folder,
                                 struct sluice_error *err);
void manifest_release(struct pack_manifest *m);

/* Replaces the manifest of the folder by m. Errors: IO, NOMEM; the old one is then untouched. */
enum sluice_status manifest_write(const struct pack_manifest *m, const char *folder,
                                  struct sluice_error *err);

/* NULL: not in the manifest. */
const struct pack_expert *manifest_expert(const struct pack_manifest *m, uint32_t layer,
                                          uint32_t expert);
const struct pack_tensor *manifest_tensor(const struct pack_manifest *m, const char *name);
const struct pack_shard *manifest_shard(const struct pack_manifest *m, const char *name);

#endif

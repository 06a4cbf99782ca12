/*
 * What a packed store of a model consists of: which tensors lie where in which shard. Tensors that
 * are not routed experts come first, in their order; then the experts by layer and number, each the
 * tensors gate weight, scales, biases, the same of up and of down in one piece that begins at a
 * multiple of 4096 of the file. Tensors of zeros fill what is left, as the format allows no holes.
 */
#ifndef SLUICE_PACK_PACK_PLAN_H
#define SLUICE_PACK_PACK_PLAN_H

#include "model/model.h"
#include "store/checksum.h"
#include "store/expert_extents.h"

enum { PACK_ALIGN = 4096, PACK_NAME_CAP = 320 };

/* One expert with what fills its last page, or one other tensor. */
struct pack_unit {
    uint32_t bank;   /* of the expert, or NO_BANK */
    uint32_t index;  /* the expert, or the tensor of the checkpoint */
    uint64_t offset; /* from the start of the shard's data */
    uint64_t bytes;  /* without filling */
    uint64_t filling;
};
#define NO_BANK UINT32_MAX

/* One tensor of a shard. */
struct pack_entry {
    char name[PACK_NAME_CAP];
    enum dtype dtype;
    uint32_t rank;
    uint64_t shape[TENSOR_MAX_RANK];
    uint64_t bytes;
    bool filling;       /* zeros, from nowhere */
    uint32_t part;      /* of an expert: 0..EXPERT_PARTS - 1 */
    struct extent from; /* in the files of the checkpoint */
};
enum { MAX_ENTRIES = EXPERT_PARTS + 1 };

struct plan_shard {
    char name[72];
    size_t first, end;     /* units */
    uint64_t header_bytes; /* the length before it included: where the data begins */
    uint64_t bytes;        /* of the file */
    size_t n_experts;      /* units that are experts */
};

struct pack_plan {
    struct arena arena;
    const struct checkpoint *cp;
    const struct model *model;
    const char **modules; /* per bank: what its tensors' names begin with, "model.layers.3.mlp" */
    struct pack_unit *units;
    size_t n_units;
    struct plan_shard *shards;
    size_t n_shards;
    uint64_t bytes; /* of all shards */
};

/*
 * data_bytes: most bytes of a shard behind its header, unless a single tensor has more. Errors:
 * UNSUPPORTED (no routed experts), NOMEM, INTERNAL; the plan is then empty. cp and model must
 * outlive it.
 */
enum sluice_status pack_plan_make(struct pack_plan *plan, const struct checkpoint *cp,
                                  const struct model *model, uint64_t data_bytes,
                                  struct sluice_error *err);
void pack_plan_release(struct pack_plan *plan);

/* The tensors of a unit, in order; gives their number. */
size_t pack_plan_entries(const struct pack_plan *plan, const struct pack_unit *unit,
                         struct pack_entry entries[MAX_ENTRIES]);

/*
 * The first header_bytes bytes of a shard: length, JSON, blanks. The caller frees. NULL: out of
 * memory.
 */
char *pack_plan_header(const struct pack_plan *plan, const struct plan_shard *shard, size_t *len);

/* The lines of a shard in the index, each beginning with a comma but the very first. As above. */
char *pack_plan_index_lines(const struct pack_plan *plan, const struct plan_shard *shard,
                            size_t *len);

#endif

/* The bytes of a packed store against the checksums of its manifest. */
#ifndef SLUICE_STORE_PACK_CHECK_H
#define SLUICE_STORE_PACK_CHECK_H

#include "store/checkpoint.h"
#include "store/pack_manifest.h"

struct pack_check {
    const struct checkpoint *cp; /* the opened pack, for names in messages */
    struct pack_manifest manifest;
};

/*
 * Reads the manifest of an opened folder; *present is false when it has none. Errors: FORMAT,
 * UNSUPPORTED, MISMATCH (a file whose size is another), IO, NOMEM; check is then empty.
 */
enum sluice_status pack_check_open(struct pack_check *check, const struct checkpoint *cp,
                                   bool *present, struct sluice_error *err);
void pack_check_release(struct pack_check *check);

/*
 * An expert whose parts were read to view. Errors: FORMAT naming layer, expert, file, tensor and
 * offset; MISMATCH (the manifest does not have it).
 */
enum sluice_status pack_check_expert(const struct pack_check *check, const struct expert_bank *bank,
                                     uint32_t expert, const struct expert_view *view,
                                     struct sluice_error *err);
/* A tensor of the pack whose bytes were read to data. Errors as above. */
enum sluice_status pack_check_tensor(const struct pack_check *check, const struct tensor *tensor,
                                     const uint8_t *data, struct sluice_error *err);

/* The checksum of parts one behind the other. False: out of memory. */
bool checksum_of_parts(const struct part_ref parts[EXPERT_PARTS], struct checksum *sum);

#endif

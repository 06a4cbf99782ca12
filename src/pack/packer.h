/* What the files of pack share: one call of sluice_pack. */
#ifndef SLUICE_PACK_PACKER_H
#define SLUICE_PACK_PACKER_H

#include "base/log.h"
#include "io/file_in.h"
#include "pack/pack_plan.h"
#include "store/pack_manifest.h"

/* Bytes that are on their way from one file to another, or to a checksum. */
enum { PIECE_BYTES = 4 << 20 };

struct packer {
    struct sluice_pack_options options;
    struct log log;
    const char *folder;
    int folder_fd; /* locked while packing */
    struct checkpoint cp;
    struct model model;
    struct pack_plan plan;
    struct pack_manifest found; /* the manifest that the folder had */
    struct pack_manifest made;  /* room for all shards of the plan; n_shards counts the plan's */
    bool *done;              /* per shard of the plan: its file is complete, its sums are in made */
    struct file_in *sources; /* the files of cp */
    uint32_t n_sources;
    uint8_t *piece;
    struct checksum_state *unit_sum, *part_sum;
    const char *doing; /* "packing" and so on, for progress */
    uint64_t progress, progress_total, told;
    struct sluice_error *err; /* never NULL */
};

/* Begins a phase whose progress is told. */
void packer_phase(struct packer *p, const char *doing, uint64_t total);
/* So many bytes more are done. Errors: CANCELLED. */
enum sluice_status packer_advance(struct packer *p, uint64_t bytes);
/* "folder/name" in memory of its own. NULL: out of memory. */
char *packer_path(const struct packer *p, const char *name);

/* pack_shard.c */

/* Writes the shard and notes its checksums in p->made. Errors: IO, CANCELLED, NOMEM. */
enum sluice_status pack_write_shard(struct packer *p, size_t shard);
/*
 * Reads the file of a shard and compares it with the plan and the checksums in p->made. Errors:
 * FORMAT (what differs), NOT_FOUND, IO, CANCELLED, NOMEM.
 */
enum sluice_status pack_check_shard(struct packer *p, size_t shard);

/* pack_folder.c */

/* Makes and locks the folder, and reads the manifest that an earlier call left. */
enum sluice_status pack_open_folder(struct packer *p);
/* Takes over the shards that are complete by that manifest, and removes other remains. */
enum sluice_status pack_take_over(struct packer *p);
/* From now on the folder is no model until pack_write_rest. */
enum sluice_status pack_unfinish(struct packer *p);
/* Whether everything is there: all shards, the manifest, and config.json, which comes last. */
bool pack_is_complete(const struct packer *p);
/* Errors: IO with the number of bytes that are missing. */
enum sluice_status pack_check_room(const struct packer *p);
/* The manifest of the shards that are done. */
enum sluice_status pack_write_manifest(struct packer *p);
/* What a model folder has beside weights; config.json last. */
enum sluice_status pack_write_rest(struct packer *p);

#endif

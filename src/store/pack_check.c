#include "store/pack_check.h"

#include <inttypes.h>

static enum sluice_status check_size(const struct pack_manifest *m, const struct file_map *file,
                                     struct sluice_error *err)
{
    const struct pack_shard *shard = manifest_shard(m, file_base_name(file->path));
    if (!shard)
        return err_set(err, SLUICE_E_MISMATCH,
                       "file '%s' is not in " PACK_MANIFEST_NAME " of its folder; pack the model "
                       "again",
                       file->path);
    if (shard->bytes == file->bytes) return SLUICE_OK;
    return err_set(err, SLUICE_E_MISMATCH,
                   "file '%s' has %" PRIu64 " bytes, but " PACK_MANIFEST_NAME " says %" PRIu64
                   "; pack the model again",
                   file->path, file->bytes, shard->bytes);
}

enum sluice_status pack_check_open(struct pack_check *check, const struct checkpoint *cp,
                                   bool *present, struct sluice_error *err)
{
    *check = (struct pack_check){.cp = cp};
    struct sluice_error why = {0};
    enum sluice_status status = manifest_read(&check->manifest, cp->path, &why);
    *present = status == SLUICE_OK;
    if (status == SLUICE_E_NOT_FOUND) return SLUICE_OK;
    if (status != SLUICE_OK && err) *err = why;
    for (size_t f = 0; f < cp->n_files && status == SLUICE_OK; f++)
        status = check_size(&check->manifest, &cp->files[f], err);
    if (status != SLUICE_OK) pack_check_release(check);
    return status;
}

void pack_check_release(struct pack_check *check)
{
    manifest_release(&check->manifest);
    *check = (struct pack_check){0};
}

/* In the store the parts of an expert touch, so that one call does for all. */
static bool is_one_piece(const struct part_ref parts[EXPERT_PARTS], uint64_t *bytes)
{
    *bytes = 0;
    for (uint32_t p = 0; p < EXPERT_PARTS; p++) {
        if (parts[p].bytes && parts[p].data != parts[0].data + *bytes) return false;
        *bytes += parts[p].bytes;
    }
    return true;
}

bool checksum_of_parts(const struct part_ref parts[EXPERT_PARTS], struct checksum *sum)
{
    uint64_t bytes;
    if (is_one_piece(parts, &bytes)) {
        *sum = checksum_of(parts[0].data, (size_t)bytes);
        return true;
    }
    struct checksum_state *state = checksum_begin();
    if (!state) return false;
    for (uint32_t p = 0; p < EXPERT_PARTS; p++)
        if (parts[p].bytes) checksum_add(state, parts[p].data, (size_t)parts[p].bytes);
    *sum = checksum_end(state);
    checksum_free(state);
    return true;
}

/* Names the part that is damaged; the first one when none differs by itself. */
static enum sluice_status damaged_expert(const struct pack_check *check,
                                         const struct pack_expert *listed,
                                         const struct expert_view *mapped,
                                         const struct part_ref parts[EXPERT_PARTS],
                                         struct sluice_error *err)
{
    struct part_ref in_file[EXPERT_PARTS];
    uint32_t bad = 0;
    extents_parts(mapped, in_file);
    for (uint32_t p = EXPERT_PARTS; p-- > 0;)
        if (parts[p].bytes &&
            (uint32_t)checksum_of(parts[p].data, (size_t)parts[p].bytes).low != listed->part[p])
            bad = p;
    const struct tensor *t = checkpoint_tensor_at(check->cp, in_file[bad].data);
    return err_set(err, SLUICE_E_FORMAT,
                   "layer %u, expert %u: tensor '%s' of file '%s' (%" PRIu64 " bytes at offset "
                   "%" PRIu64 ") is damaged: its checksum is not the one in " PACK_MANIFEST_NAME
                   "; copy the file or pack the model again",
                   listed->layer, listed->expert, t ? t->name : "",
                   t ? check->cp->files[t->file].path : "", in_file[bad].bytes, t ? t->offset : 0);
}

enum sluice_status pack_check_expert(const struct pack_check *check, const struct expert_bank *bank,
                                     uint32_t expert, const struct expert_view *view,
                                     struct sluice_error *err)
{
    const struct pack_expert *listed = manifest_expert(&check->manifest, bank->layer, expert);
    if (!listed)
        return err_set(err, SLUICE_E_MISMATCH,
                       "layer %u, expert %u: " PACK_MANIFEST_NAME
                       " has no checksum of it; pack the model again",
                       bank->layer, expert);
    struct part_ref parts[EXPERT_PARTS];
    struct checksum sum;
    extents_parts(view, parts);
    if (!checksum_of_parts(parts, &sum)) return err_nomem(err, "checksum of an expert", 0);
    if (checksum_equal(sum, listed->sum)) return SLUICE_OK;
    return damaged_expert(check, listed, &bank->experts[expert], parts, err);
}

enum sluice_status pack_check_tensor(const struct pack_check *check, const struct tensor *t,
                                     const uint8_t *data, struct sluice_error *err)
{
    const struct pack_tensor *listed = manifest_tensor(&check->manifest, t->name);
    if (!listed)
        return err_set(err, SLUICE_E_MISMATCH,
                       "tensor '%s': " PACK_MANIFEST_NAME
                       " has no checksum of it; pack the model again",
                       t->name);
    if (checksum_equal(checksum_of(data, (size_t)t->bytes), listed->sum)) return SLUICE_OK;
    return err_set(err, SLUICE_E_FORMAT,
                   "tensor '%s' of file '%s' (%" PRIu64 " bytes at offset %" PRIu64
                   ") is damaged: its checksum is not the one in " PACK_MANIFEST_NAME
                   "; copy the file or pack the model again",
                   t->name, check->cp->files[t->file].path, t->bytes, t->offset);
}

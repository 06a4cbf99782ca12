/* The GGUF side of checkpoint.h, and what both sides share. */
#ifndef SLUICE_STORE_CHECKPOINT_GGUF_H
#define SLUICE_STORE_CHECKPOINT_GGUF_H

#include "store/checkpoint.h"

/* Whether path is a GGUF file, or a folder whose only weights are GGUF files. */
bool checkpoint_is_gguf(const char *path);
/* Maps the parts and lists their tensors. On error the caller releases cp. */
enum sluice_status checkpoint_open_gguf(struct checkpoint *cp, const char *path,
                                        struct sluice_error *err);

struct tensor_list {
    const struct tensor_entry *items;
    size_t n;
};

/* Makes the directory of all tensors from those of cp->files. */
enum sluice_status checkpoint_list(struct checkpoint *cp, const struct tensor_list *lists,
                                   struct sluice_error *err);

#endif

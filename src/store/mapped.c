#include "store/mapped.h"

#include <sys/mman.h>

#include "store/expert_extents.h"

void mapped_read_here_and_there(const struct file_map *files, size_t n_files)
{
    for (size_t f = 0; f < n_files; f++)
        if (files[f].bytes)
            (void)madvise((void *)(uintptr_t)files[f].data, files[f].bytes, MADV_RANDOM);
}

void mapped_will_need(const struct expert_bank *bank, const uint32_t *experts, uint32_t n)
{
    struct part_ref parts[EXPERT_PARTS];
    for (uint32_t i = 0; i < n; i++) {
        extents_parts(&bank->experts[experts[i]], parts);
        for (uint32_t p = 0; p < EXPERT_PARTS; p++) file_want(parts[p].data, parts[p].bytes);
    }
}

/* Telling the kernel how experts that stay mapped will be read. Advice it does not take is no
 * error. */
#ifndef SLUICE_STORE_MAPPED_H
#define SLUICE_STORE_MAPPED_H

#include "io/file.h"
#include "store/bank.h"

/* Files are read here and there: nothing around what is touched is wanted (MADV_RANDOM). */
void mapped_read_here_and_there(const struct file_map *files, size_t n_files);
/* These experts are computed next: all their bytes may be read now (MADV_WILLNEED). */
void mapped_will_need(const struct expert_bank *bank, const uint32_t *experts, uint32_t n);

#endif

/* Where the shipped model is. */
#ifndef APPS_MODEL_PATH_H
#define APPS_MODEL_PATH_H

#include "buffer.h"
#include "sluice/sluice.h"

/*
 * The folder of the storyteller: models/storyteller or share/sluice/models/storyteller beside the
 * program or one of the four folders above it, else models/storyteller in the data folder given at
 * compile time. program: the program's real path. Error: NOT_FOUND.
 */
SLUICE_NODISCARD enum sluice_status model_path_find(const char *program, struct buffer *path,
                                                    struct sluice_error *err);
/* The real path of the running program; empty when the system does not say. */
void model_path_program(struct buffer *program);

#endif

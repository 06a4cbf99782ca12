/* What the files of the engine share. */
#ifndef SLUICE_ENGINE_INTERNAL_H
#define SLUICE_ENGINE_INTERNAL_H

#include <pthread.h>

#include "backend/cpu/cpu_backend.h"
#include "base/log.h"
#include "model/model.h"
#include "state/sequence.h"

struct call_memory;

struct sluice_engine {
    struct sluice_engine_options options;
    struct log log;
    char *path;
    char cpu_text[128];
    struct checkpoint checkpoint;
    struct model model;
    struct state_layout layout;
    struct cpu_backend *backend;
    uint32_t max_outputs; /* rows of the tail in one run */
    struct sluice_tokenizer *tokenizer;
    struct sluice_error tokenizer_error;
    pthread_mutex_t run_lock; /* one evaluation at a time; also guards what follows */
    struct call_memory *call_memory;
    struct sluice_stats stats;
};

struct sluice_session {
    struct sluice_engine *engine;
    struct sequence sequence;
    bool in_call; /* guarded by run_lock: part of the call being checked */
};

/* eval.c */
void call_memory_free(struct call_memory **memory);

#endif

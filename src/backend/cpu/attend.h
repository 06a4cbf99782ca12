/* Softmax attention of the rows of a batch over the positions that they see. */
#ifndef SLUICE_BACKEND_CPU_ATTEND_H
#define SLUICE_BACKEND_CPU_ATTEND_H

#include "backend/cpu/cpu_internal.h"

/* What attention and sink_attention look at. */
struct attending {
    const float *q, *sinks; /* sinks NULL: none */
    float *y;
    uint32_t kv, n_heads, n_kv_heads, head_dim, window;
    float scale;
};

/* A thread's part of a node. All threads of the run call it; there may be a barrier within. */
void cpu_attend(const struct task *t, const struct node *node, const struct attending *a,
                uint32_t n_rows);

/* Memory for what is split among threads, and the floats of scratch that a thread needs. */
enum sluice_status cpu_alloc_attend(struct cpu_backend *be, struct sluice_error *err);
size_t cpu_attend_scratch(const struct cpu_backend *be);

#endif

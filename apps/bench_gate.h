/*
 * The golden gate of a model in memory: the first tokens in exact precision, which shares no
 * product of weights with the fast kernels, against the same tokens as they are measured.
 */
#ifndef APPS_BENCH_GATE_H
#define APPS_BENCH_GATE_H

#include "app.h"

enum { GATE_STEPS = 8 };

struct gate {
    int32_t ids[GATE_STEPS]; /* to evaluate one by one: the first, then the likeliest of exact */
    float *logits;           /* of exact [GATE_STEPS][vocab_size] */
    uint32_t vocab_size;
    size_t n_judged;
    size_t n_agreed; /* tokens of which both think the same the likeliest */
    double kl;       /* mean divergence of the judged ones from exact, in nats */
};

/*
 * Decodes in exact precision, with the fewest slots for experts that do, and closes the engine
 * again: open it before the one that is measured, so that weights are never there twice. Errors:
 * those of sluice_engine_open and sluice_eval, NOMEM.
 */
SLUICE_NODISCARD enum sluice_status gate_open(struct gate *gate, struct app *app, const char *path,
                                              struct sluice_error *err);
/*
 * Judges the logits of the next id. Another id may be the likeliest only where exact itself holds
 * the two for nearly alike, and the distributions must be near. Errors: MISMATCH.
 */
SLUICE_NODISCARD enum sluice_status gate_judge(struct gate *gate, const float *logits,
                                               struct sluice_error *err);
void gate_close(struct gate *gate);

#endif

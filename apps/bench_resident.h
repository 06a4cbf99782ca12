/* What `sluice bench` measured with the model in memory, from its parts to its report. */
#ifndef APPS_BENCH_RESIDENT_H
#define APPS_BENCH_RESIDENT_H

#include "bench_dram.h"
#include "bench_gate.h"
#include "bench_profile.h"
#include "bench_stats.h"

enum { GATE_TOKENS = 48, MOST_ROUNDS = 1000 };

/* Something that is measured in every round: decoding, a prompt, decoding behind a context. */
struct phase {
    char name[32];
    uint32_t context;        /* positions before the first token that is measured */
    uint32_t n;              /* tokens; 0: more than the model's context holds */
    bool decode;             /* one by one */
    double bytes;            /* that a token reads and writes */
    double products;         /* of weights, for a token */
    double *rates;           /* tokens a second [rounds] */
    struct profile *profile; /* of one more round; NULL: not wanted */
    uint64_t profile_ns;     /* that it took */
};

struct resident {
    struct app *app;
    struct buffer path;
    sluice_engine *engine;
    struct sluice_engine_info info;
    struct gate gate;
    struct dram_probe dram;
    const char *peak_how;
    size_t rounds;
    uint32_t batch; /* most tokens that are evaluated at once */
    int32_t *ids;   /* [most tokens of a phase] */
    float *logits, *other;
    struct phase *phases; /* decode, prompts, contexts */
    size_t n_phases, n_prefills, n_contexts;
    double *dram_rates, *peak_rates; /* [rounds] */
};

/* Of contexts: how the time of a token grows with the positions that it looks at. */
struct growth {
    double of_limit;  /* slope over the time that the memory needs for the keys and values */
    double deviation; /* the largest one from the line, of the time on the line */
};

/* The limits that the rates stand beside: the best of all rounds. */
struct machine_limits resident_limits(const struct resident *b);
/* False: less than three points. */
bool resident_growth(const struct resident *b, struct growth *growth);
void resident_print(struct resident *b);
json_t *resident_json(struct resident *b);
/* bench_plot.c: the time over the context, and the profile of decoding. */
void resident_plot(const struct resident *b, struct buffer *svg);

enum sluice_status bench_resident(struct app *app, struct sluice_error *err);

#endif

/* What `sluice bench --stream` measured, from bench_stream.c to bench_stream_report.c. */
#ifndef APPS_BENCH_STREAM_H
#define APPS_BENCH_STREAM_H

#include "bench_decoder.h"
#include "bench_drive.h"

/* A window of tokens with the drive's rate beside it. */
struct sample {
    struct window window;
    double drive_rate;    /* bytes a second, the better of just before and just after */
    struct window mapped; /* the same tokens with mapped experts; n is 0: not measured */
};

/* What one budget gave. */
struct budget_result {
    uint64_t ram; /* as asked for; 0: slots were */
    uint32_t n_slots;
    uint64_t plan_bytes;
    struct window cold;
    size_t n_warmup;                     /* tokens between the cold ones and the first sample */
    bool filled;                         /* the slots were full before the first sample */
    uint64_t misses;                     /* of the whole run */
    uint64_t lru_misses, optimum_misses; /* what cache-sim makes of its routing */
    struct sluice_stats counted;         /* by the engine, of the whole run */
    struct sample *samples;              /* [n_samples] */
    size_t n_samples;
    char io_engine[16];
    bool io_direct;
};

struct stream_report {
    struct sluice_engine_info info; /* strings are not valid any more */
    const char *path;
    struct forced_route route;
    double dram_rate;
    double load; /* runnable threads of the machine, the larger of before and after */
    bool drive_direct, drive_uring;
    size_t drive_piece;
    double drive_before[DRIVE_DEPTHS], drive_after[DRIVE_DEPTHS];
    double drive_rate; /* the best of all */
    struct budget_result *results;
    size_t n_results;
    struct golden golden;
    const char *reference;  /* what the tokens were compared with */
    struct window resident; /* n is 0: not measured */
};

uint32_t stream_all_experts(const struct sluice_engine_info *info);
void stream_print(const struct stream_report *report, struct output *out);
json_t *stream_json(const struct stream_report *report);

enum sluice_status bench_stream(struct app *app, struct sluice_error *err);

#endif

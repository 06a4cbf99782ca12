/* sluice pack: a copy of a model laid out for streaming. */
#include <string.h>

#include "app.h"
#include "clock.h"
#include "interrupt.h"
#include "report.h"
#include "units.h"

/* What the callbacks need, and what they add up for the last sentence. */
struct packing {
    struct app *app;
    const char *doing; /* the phase under way */
    bool wrote;        /* there was something to pack */
    uint64_t bytes;    /* that were packed */
    uint64_t began_at, ended_at;
};

static void show_progress(void *user, const char *doing, uint64_t done, uint64_t total)
{
    struct packing *p = user;
    struct progress *line = &p->app->progress;
    if (p->doing != doing) {
        if (p->doing) progress_end(line);
        progress_begin(line, doing, "MiB", (size_t)(total >> 20));
        p->doing = doing;
    }
    progress_update(line, (size_t)(done >> 20));
    if (strcmp(doing, "packing") != 0) return;
    p->ended_at = clock_ns();
    if (!p->wrote) p->began_at = p->ended_at;
    p->wrote = true;
    p->bytes = done;
}

static bool is_interrupted(void *user)
{
    (void)user;
    return interrupt_signal() != 0;
}

static enum sluice_status print_result(struct app *app, const struct packing *p,
                                       struct sluice_error *err)
{
    double seconds = (double)(p->ended_at - p->began_at) / 1e9;
    if (app->args->json)
        return app_print_json(app,
                              json_pack("{s:s, s:I, s:f, s:b}", "folder", app->args->folder,
                                        "bytes_written", (json_int_t)p->bytes, "seconds", seconds,
                                        "verified", (int)app->args->verify),
                              err);
    char bytes[UNITS_CAP], rate[UNITS_CAP];
    units_bytes(p->bytes, bytes);
    units_bytes(seconds > 0 ? (uint64_t)((double)p->bytes / seconds) : 0, rate);
    if (!p->wrote)
        say("'%s' was complete already%s", app->args->folder,
            app->args->verify ? ", and all of its checksums hold" : "; --verify checks it");
    else
        say("packed %s into '%s' in %.1f s, %s/s%s", bytes, app->args->folder, seconds, rate,
            app->args->verify ? "; all checksums hold" : "");
    return SLUICE_OK;
}

enum sluice_status cmd_pack(struct app *app, struct sluice_error *err)
{
    struct packing packing = {.app = app};
    struct sluice_pack_options options;
    sluice_pack_options_default(&options);
    options.verify = app->args->verify;
    options.shard_bytes = numbers_last(&app->args->shard_size);
    options.progress = show_progress;
    options.cancelled = is_interrupted;
    options.user = &packing;
    options.log = app_print_log;
    options.log_user = app;
    enum sluice_status status = sluice_pack(app->args->model, app->args->folder, &options, err);
    progress_end(&app->progress);
    if (status == SLUICE_E_CANCELLED) say("%s", err->message);
    if (status != SLUICE_OK) return status;
    return print_result(app, &packing, err);
}

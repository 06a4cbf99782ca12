/* What the commands share: where results go, how models are opened and evaluated. */
#ifndef APPS_APP_H
#define APPS_APP_H

#include <jansson.h>

#include "args.h"
#include "idfile.h"
#include "output.h"
#include "progress.h"
#include "sluice/sluice.h"

struct app {
    const struct args *args;
    struct output out;
    struct progress progress;
    size_t progress_base; /* ids that earlier evaluations under the same progress line did */
    uint32_t plan_ctx;    /* tokens of context to plan memory for; 0: --ctx or the default */
    bool many_logits;     /* calls want logits of many tokens, not of the last one alone */
    enum sluice_log_level log_level;
};

/* Commands. CANCELLED is no failure that needs a message. */
#define C(id, name, synopsis, summary)                                                             \
    enum sluice_status cmd_##id(struct app *app, struct sluice_error *err);
#include "commands.def"
#undef C

/* MODEL, or the path of the storyteller. */
SLUICE_NODISCARD enum sluice_status app_model_path(const struct app *app, struct buffer *path,
                                                   struct sluice_error *err);

/* A sluice_log_fn: prints what the level of SLUICE_LOG lets through. user: the app. */
void app_print_log(void *user, enum sluice_log_level level, const char *message);

/* Opens the model with the options of the command line. Changes to *options come before. */
void app_engine_options(struct app *app, struct sluice_engine_options *options);
SLUICE_NODISCARD enum sluice_status app_open(struct app *app, sluice_engine **engine,
                                             struct sluice_error *err);

/* --heat: what the file holds, if there is one; and the new profile into it. */
SLUICE_NODISCARD enum sluice_status app_read_heat(const struct app *app, struct buffer *heat,
                                                  struct sluice_error *err);
SLUICE_NODISCARD enum sluice_status
app_write_heat(const struct app *app, const sluice_engine *engine, struct sluice_error *err);

/* The engine's tokenizer; an error that says why there is none. */
SLUICE_NODISCARD enum sluice_status app_tokenizer(const sluice_engine *engine,
                                                  const sluice_tokenizer **tokenizer,
                                                  struct sluice_error *err);
/* Adds the ids of a text. */
SLUICE_NODISCARD enum sluice_status app_tokenize(const sluice_tokenizer *tokenizer,
                                                 const char *text, size_t len, struct ids *ids,
                                                 struct sluice_error *err);

/* Adds the ids of --prompt, --prompt-file or --ids, at least one. */
SLUICE_NODISCARD enum sluice_status app_read_prompt(const struct app *app,
                                                    const sluice_engine *engine, struct ids *prompt,
                                                    struct sluice_error *err);

/* sluice_eval() of one segment, which can be interrupted and moves the progress line. */
SLUICE_NODISCARD enum sluice_status app_eval(struct app *app, sluice_engine *engine,
                                             const struct sluice_segment *segment, float *hidden,
                                             float *logits, struct sluice_error *err);
/* Rows of so many floats to evaluate at once, so that what they need stays below 64 MiB. */
size_t app_rows_at_once(size_t floats_per_row);

/* What the engine's memory is planned for and how it reads, as lines; and for JSON. */
void app_plan_text(const sluice_engine *engine, struct buffer *out);
json_t *app_plan_json(const sluice_engine *engine);
/* The plan and the engine's counters, for --stats and for JSON. */
void app_say_stats(const sluice_engine *engine);
json_t *app_stats_json(const sluice_engine *engine);

/* Prints a JSON object on one line and releases it. */
SLUICE_NODISCARD enum sluice_status app_print_json(struct app *app, json_t *root,
                                                   struct sluice_error *err);
/* A JSON string of any bytes: what is no UTF-8 becomes U+FFFD. */
json_t *app_json_text(const char *text, size_t len);

#endif

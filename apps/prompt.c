/* The prompt of a command line, as ids. */
#include "app.h"
#include "input.h"
#include "report.h"

static enum sluice_status read_text(const struct app *app, const sluice_engine *engine,
                                    struct ids *prompt, struct sluice_error *err)
{
    const struct args *args = app->args;
    const sluice_tokenizer *tokenizer;
    TRY(app_tokenizer(engine, &tokenizer, err));
    struct buffer text = {0};
    enum sluice_status status = SLUICE_OK;
    if (args->prompt_file) {
        status = input_read(args->prompt_file, &text, err);
    } else {
        buffer_text(&text, args->prompt);
        if (text.failed) status = fail_nomem(err, "the prompt");
    }
    if (status == SLUICE_OK) status = app_tokenize(tokenizer, text.data, text.len, prompt, err);
    buffer_release(&text);
    return status;
}

enum sluice_status app_read_prompt(const struct app *app, const sluice_engine *engine,
                                   struct ids *prompt, struct sluice_error *err)
{
    const struct args *args = app->args;
    if (args->ids) {
        struct sluice_engine_info info = {.size = sizeof info};
        sluice_engine_get_info(engine, &info);
        TRY(ids_read(prompt, args->ids, err));
        TRY(ids_check(prompt, args->ids, info.vocab_size, err));
    } else {
        TRY(read_text(app, engine, prompt, err));
    }
    if (prompt->n) return SLUICE_OK;
    return fail(err, SLUICE_E_ARGUMENT,
                "the prompt is empty; the model needs at least one token to continue");
}

/* sluice tokenize and sluice detokenize: text to ids and back, without the weights. */
#include <stdlib.h>

#include "app.h"
#include "input.h"
#include "report.h"

static enum sluice_status open_tokenizer(struct app *app, sluice_tokenizer **tokenizer,
                                         struct sluice_error *err)
{
    struct buffer path = {0};
    enum sluice_status status = app_model_path(app, &path, err);
    if (status == SLUICE_OK) status = sluice_tokenizer_open(tokenizer, path.data, err);
    buffer_release(&path);
    return status;
}

static enum sluice_status print_ids(struct app *app, const struct ids *ids,
                                    struct sluice_error *err)
{
    if (app->args->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < ids->n; i++)
            json_array_append_new(list, json_integer(ids->items[i]));
        return app_print_json(app, json_pack("{s:o}", "ids", list), err);
    }
    struct buffer line = {0};
    ids_print(ids, &line);
    buffer_text(&line, "\n");
    output_buffer(&app->out, &line);
    buffer_release(&line);
    return SLUICE_OK;
}

enum sluice_status cmd_tokenize(struct app *app, struct sluice_error *err)
{
    sluice_tokenizer *tokenizer = NULL;
    struct buffer text = {0};
    struct ids ids = {0};
    enum sluice_status status = open_tokenizer(app, &tokenizer, err);
    if (status == SLUICE_OK)
        status = input_read(app->args->text ? app->args->text : "-", &text, err);
    if (status == SLUICE_OK) status = app_tokenize(tokenizer, text.data, text.len, &ids, err);
    if (status == SLUICE_OK) status = print_ids(app, &ids, err);
    ids_release(&ids);
    buffer_release(&text);
    sluice_tokenizer_close(&tokenizer);
    return status;
}

static enum sluice_status detokenize(const sluice_tokenizer *tokenizer, const struct ids *ids,
                                     struct buffer *text, struct sluice_error *err)
{
    size_t len = 0;
    TRY(sluice_detokenize(tokenizer, ids->items, ids->n, 0, NULL, 0, &len, err));
    if (!buffer_reserve(text, len)) return fail_nomem(err, "the text");
    TRY(sluice_detokenize(tokenizer, ids->items, ids->n, 0, text->data, len, &text->len, err));
    return SLUICE_OK;
}

static enum sluice_status print_text(struct app *app, const struct buffer *text,
                                     struct sluice_error *err)
{
    if (app->args->json)
        return app_print_json(app, json_pack("{s:o}", "text", app_json_text(text->data, text->len)),
                              err);
    output_buffer(&app->out, text);
    output_end_line(&app->out);
    return SLUICE_OK;
}

enum sluice_status cmd_detokenize(struct app *app, struct sluice_error *err)
{
    const char *file = app->args->ids ? app->args->ids : "-";
    sluice_tokenizer *tokenizer = NULL;
    struct buffer text = {0};
    struct ids ids = {0};
    enum sluice_status status = open_tokenizer(app, &tokenizer, err);
    if (status == SLUICE_OK) status = ids_read(&ids, file, err);
    if (status == SLUICE_OK)
        status = ids_check(&ids, file, sluice_tokenizer_vocab_size(tokenizer), err);
    if (status == SLUICE_OK) status = detokenize(tokenizer, &ids, &text, err);
    if (status == SLUICE_OK) status = print_text(app, &text, err);
    ids_release(&ids);
    buffer_release(&text);
    sluice_tokenizer_close(&tokenizer);
    return status;
}

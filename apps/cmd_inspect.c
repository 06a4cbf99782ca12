/* sluice inspect: what a model is and how much memory it needs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "report.h"
#include "units.h"

struct view {
    const sluice_engine *engine;
    struct sluice_engine_info info;
    uint64_t n_ctx;
    size_t n_tensors, n_skipped;
};

static struct sluice_tensor_info tensor_at(const struct view *view, size_t i)
{
    struct sluice_tensor_info t = {.size = sizeof t};
    sluice_engine_get_tensor(view->engine, i, &t);
    return t;
}

static struct view make_view(const struct app *app, const sluice_engine *engine)
{
    struct view view = {.engine = engine, .info = {.size = sizeof view.info}};
    sluice_engine_get_info(engine, &view.info);
    uint32_t trained = view.info.trained_context;
    view.n_ctx = app->args->ctx ? app->args->ctx : trained < 4096 ? trained : 4096;
    view.n_tensors = sluice_engine_tensor_count(engine);
    for (size_t i = 0; i < view.n_tensors; i++)
        view.n_skipped += strcmp(tensor_at(&view, i).kind, "skipped") == 0;
    return view;
}

/* As text */

static void line_number(struct buffer *out, const char *label, uint64_t value, const char *unit)
{
    buffer_printf(out, "%-18s%" PRIu64 "%s%s\n", label, value, *unit ? " " : "", unit);
}

static void line_bytes(struct buffer *out, const char *label, uint64_t bytes, const char *note)
{
    char size[UNITS_CAP];
    units_bytes(bytes, size);
    buffer_printf(out, "%-18s%s%s%s\n", label, size, *note ? ", " : "", note);
}

static void print_shape(const struct view *view, struct buffer *out)
{
    const struct sluice_engine_info *info = &view->info;
    char count[UNITS_CAP];
    units_count(info->n_parameters, count);
    buffer_printf(out, "%-18s%s\n", "model", info->path);
    buffer_printf(out, "%-18s%s\n", "architecture", info->architecture);
    buffer_printf(out, "%-18s%s\n", "parameters", count);
    line_number(out, "layers", info->n_layers, "");
    line_number(out, "hidden size", info->hidden_size, "");
    line_number(out, "vocabulary", info->vocab_size, "ids");
    buffer_printf(out, "%-18s%" PRIu32 " a layer, %" PRIu32 " used by a token\n", "experts",
                  info->n_experts, info->n_experts_used);
    line_number(out, "trained context", info->trained_context, "tokens");
    buffer_printf(out, "%-18s%s\n", "precision",
                  info->precision == SLUICE_EXACT ? "exact" : "fast");
    buffer_printf(out, "%-18s%s\n", "processor", info->cpu_features);
}

static void print_memory(const struct view *view, struct buffer *out)
{
    const struct sluice_engine_info *info = &view->info;
    char size[UNITS_CAP];
    char total[UNITS_CAP];
    line_number(out, "tensors", view->n_tensors, "");
    line_bytes(out, "dense weights", info->dense_bytes, "read for every token");
    units_bytes(info->bytes_per_expert, size);
    units_bytes(info->expert_bytes, total);
    buffer_printf(out, "%-18s%s, %s each at most\n", "expert weights", total, size);
    line_bytes(out, "converted", info->converted_bytes, "small tensors kept as 32-bit floats");
    units_bytes(info->kv_bytes_per_token, size);
    units_bytes(info->kv_bytes_per_token * view->n_ctx, total);
    buffer_printf(out, "%-18s%s a token, %s for %" PRIu64 " tokens\n", "KV cache", size, total,
                  view->n_ctx);
    line_bytes(out, "recurrent state", info->recurrent_bytes, "for each session");
    char batch[48];
    snprintf(batch, sizeof batch, "for a batch of %" PRIu32 " tokens", info->max_batch_tokens);
    line_bytes(out, "scratch", info->scratch_bytes, batch);
    app_plan_text(view->engine, out);
    if (info->padding_bytes) line_bytes(out, "padding", info->padding_bytes, "between experts");
    if (!view->n_skipped) return;
    units_bytes(info->skipped_bytes, size);
    buffer_printf(out, "%-18s%s, tensors that text does not need: %zu\n", "skipped", size,
                  view->n_skipped);
}

static void print_tensors(const struct view *view, struct buffer *out)
{
    for (size_t i = 0; i < view->n_tensors; i++) {
        struct sluice_tensor_info t = tensor_at(view, i);
        buffer_printf(out, "%s %s [", t.name, t.dtype);
        for (uint32_t d = 0; d < t.rank; d++)
            buffer_printf(out, d ? ", %" PRIu64 : "%" PRIu64, t.shape[d]);
        buffer_printf(out, "] %" PRIu64 " bytes, %s at %" PRIu64 ", %s\n", t.bytes, t.file,
                      t.offset, t.kind);
    }
}

/* As JSON */

static void set_number(json_t *root, const char *key, uint64_t value)
{
    json_object_set_new(root, key, json_integer((json_int_t)value));
}

static void set_text(json_t *root, const char *key, const char *text)
{
    json_object_set_new(root, key, app_json_text(text, strlen(text)));
}

static json_t *tensor_json(const struct sluice_tensor_info *t)
{
    json_t *root = json_object();
    set_text(root, "name", t->name);
    set_text(root, "dtype", t->dtype);
    json_t *shape = json_array();
    for (uint32_t d = 0; d < t->rank; d++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
    json_object_set_new(root, "shape", shape);
    set_number(root, "bytes", t->bytes);
    set_text(root, "file", t->file);
    set_number(root, "offset", t->offset);
    set_text(root, "kind", t->kind);
    return root;
}

static json_t *view_json(const struct view *view, bool with_tensors)
{
    const struct sluice_engine_info *info = &view->info;
    json_t *root = json_object();
    set_text(root, "path", info->path);
    set_text(root, "architecture", info->architecture);
    set_text(root, "precision", info->precision == SLUICE_EXACT ? "exact" : "fast");
    set_text(root, "cpu_features", info->cpu_features);
#define SET(field) set_number(root, #field, info->field)
    SET(n_parameters);
    SET(n_layers);
    SET(hidden_size);
    SET(vocab_size);
    SET(n_experts);
    SET(n_experts_used);
    SET(trained_context);
    SET(dense_bytes);
    SET(expert_bytes);
    SET(bytes_per_expert);
    SET(kv_bytes_per_token);
    SET(recurrent_bytes);
    SET(scratch_bytes);
    SET(max_batch_tokens);
    SET(skipped_bytes);
    SET(padding_bytes);
    SET(converted_bytes);
#undef SET
    json_object_set_new(root, "plan", app_plan_json(view->engine));
    set_number(root, "n_ctx", view->n_ctx);
    set_number(root, "n_tensors", view->n_tensors);
    set_number(root, "n_skipped_tensors", view->n_skipped);
    if (!with_tensors) return root;
    json_t *tensors = json_array();
    for (size_t i = 0; i < view->n_tensors; i++) {
        struct sluice_tensor_info t = tensor_at(view, i);
        json_array_append_new(tensors, tensor_json(&t));
    }
    json_object_set_new(root, "tensors", tensors);
    return root;
}

/* Without weights, unless they are to be compared with their checksums. */
static enum sluice_status open_engine(struct app *app, sluice_engine **engine,
                                      struct sluice_error *err)
{
    struct buffer path = {0};
    enum sluice_status status = app_model_path(app, &path, err);
    *engine = NULL;
    if (status == SLUICE_OK) {
        struct sluice_engine_options options;
        app_engine_options(app, &options);
        options.plan_only = !app->args->verify;
        status = sluice_engine_open(engine, path.data, &options, err);
    }
    buffer_release(&path);
    return status;
}

enum sluice_status cmd_inspect(struct app *app, struct sluice_error *err)
{
    sluice_engine *engine;
    TRY(open_engine(app, &engine, err));
    struct view view = make_view(app, engine);
    enum sluice_status status = SLUICE_OK;
    if (app->args->json) {
        status = app_print_json(app, view_json(&view, app->args->tensors), err);
    } else {
        struct buffer text = {0};
        print_shape(&view, &text);
        print_memory(&view, &text);
        if (app->args->tensors) print_tensors(&view, &text);
        output_buffer(&app->out, &text);
        buffer_release(&text);
    }
    sluice_engine_close(&engine);
    return status;
}

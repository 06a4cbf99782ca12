#include "app.h"
#include "report.h"
#include "synth.h"
#include "units.h"

enum sluice_status cmd_synth(struct app *app, struct sluice_error *err)
{
    const struct args *args = app->args;
    struct synth_options options = {
        .like = args->like,
        .layers = (uint32_t)args->layers,
        .bits = (uint32_t)args->bits,
        .group = (uint32_t)args->group,
        .layout = (enum synth_layout)args->layout,
        .seed = args->seed,
    };
    struct synth_model model;
    TRY(synth_describe(&model, &options, err));
    enum sluice_status status = synth_write(&model, args->model, options.seed, &app->progress, err);
    char bytes[UNITS_CAP];
    units_bytes(model.bytes, bytes);
    if (status == SLUICE_OK) say("wrote %zu tensors, %s, to %s", model.n, bytes, args->model);
    synth_release(&model);
    return status;
}

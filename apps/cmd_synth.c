#include "app.h"
#include "report.h"
#include "synth.h"
#include "units.h"

enum sluice_status cmd_synth(struct app *app, struct sluice_error *err)
{
    static const uint32_t bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    const struct args *args = app->args;
    struct synth_options options = {
        .like = args->like,
        .layers = (uint32_t)args->layers,
        .bits = bits[args->bits],
        .group = groups[args->group],
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

/* sluice bench: how fast a model runs here, beside what this machine could do at best. */
#include "app.h"
#include "bench_resident.h"
#include "bench_stream.h"

enum sluice_status cmd_bench(struct app *app, struct sluice_error *err)
{
    return app->args->stream ? bench_stream(app, err) : bench_resident(app, err);
}

/* --heat: the profile of experts in use, from one run to the next. */
#include "app.h"
#include "input.h"
#include "report.h"
#include "result_file.h"

enum sluice_status app_read_heat(const struct app *app, struct buffer *heat,
                                 struct sluice_error *err)
{
    const char *path = app->args->heat;
    if (!path) return SLUICE_OK;
    enum sluice_status status = input_read(path, heat, err);
    return status == SLUICE_E_NOT_FOUND ? SLUICE_OK : status; /* the first run makes it */
}

enum sluice_status app_write_heat(const struct app *app, const sluice_engine *engine,
                                  struct sluice_error *err)
{
    const char *path = app->args->heat;
    if (!path) return SLUICE_OK;
    struct result_file file;
    TRY(result_file_open(&file, path, err));
    enum sluice_status status = sluice_engine_write_heat(engine, result_file_append, &file, err);
    if (status == SLUICE_OK) status = result_file_close(&file, err);
    result_file_abort(&file);
    return status;
}

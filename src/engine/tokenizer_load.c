/* The tokenizer, which may take half a second, is built beside what else is opened. */
#include "engine/internal.h"
#include "token/tokenizer.h"

static void build(struct sluice_engine *e)
{
    (void)tokenizer_open(e->path, &e->tokenizer, &e->tokenizer_error);
}

static void *build_thread(void *arg)
{
    build(arg);
    return NULL;
}

void tokenizer_begin(struct sluice_engine *e)
{
    e->tokenizer_comes = pthread_create(&e->tokenizer_thread, NULL, build_thread, e) == 0;
    if (!e->tokenizer_comes) build(e);
}

void tokenizer_join(struct sluice_engine *e)
{
    if (e->tokenizer_comes) pthread_join(e->tokenizer_thread, NULL);
    e->tokenizer_comes = false;
}

enum sluice_status tokenizer_end(struct sluice_engine *e, struct sluice_error *err)
{
    tokenizer_join(e);
    if (e->tokenizer) return SLUICE_OK;
    if (e->tokenizer_error.code == SLUICE_E_NOMEM)
        return err_set(err, SLUICE_E_NOMEM, "%s", e->tokenizer_error.message);
    log_write(&e->log, SLUICE_LOG_INFO, "no tokenizer: %s", e->tokenizer_error.message);
    return SLUICE_OK;
}

/* Sessions: one timeline each. */
#include <stdlib.h>

#include "base/bits.h"
#include "base/options.h"
#include "engine/internal.h"

enum { MAX_CTX = 1 << 24 };

void sluice_session_options_default(struct sluice_session_options *options)
{
    *options = (struct sluice_session_options){.size = sizeof *options};
}

enum sluice_status sluice_session_open(sluice_session **session, sluice_engine *engine,
                                       const struct sluice_session_options *options,
                                       struct sluice_error *err)
{
    *session = NULL;
    struct sluice_session_options o;
    sluice_session_options_default(&o);
    if (!engine) return err_set(err, SLUICE_E_ARGUMENT, "no engine was given");
    TRY(options_take(&o, sizeof o, options, "session", err));
    uint32_t n_ctx =
        o.n_ctx ? o.n_ctx : min_u32(engine->model.trained_context, SESSION_DEFAULT_CTX);
    if (n_ctx > MAX_CTX)
        return err_set(err, SLUICE_E_ARGUMENT, "a context of %u tokens was asked for; at most %d",
                       n_ctx, MAX_CTX);
    if (n_ctx > engine->model.trained_context)
        log_write(&engine->log, SLUICE_LOG_WARNING,
                  "a context of %u tokens is more than the %u the model was trained for", n_ctx,
                  engine->model.trained_context);
    struct sluice_session *s = calloc(1, sizeof *s);
    if (!s) return err_nomem(err, "session", sizeof *s);
    s->engine = engine;
    s->bytes = layout_session_bytes(&engine->layout, n_ctx);
    enum sluice_status status = memory_add_session(engine, s->bytes, err);
    if (status == SLUICE_OK) {
        status = sequence_init(&s->sequence, &engine->layout, n_ctx, err);
        if (status != SLUICE_OK) memory_remove_session(engine, s->bytes);
    }
    if (status != SLUICE_OK) {
        free(s);
        return status;
    }
    *session = s;
    return SLUICE_OK;
}

void sluice_session_close(sluice_session **session)
{
    struct sluice_session *s = *session;
    if (!s) return;
    *session = NULL;
    sequence_release(&s->sequence);
    memory_remove_session(s->engine, s->bytes);
    free(s);
}

void sluice_session_reset(sluice_session *session)
{
    sequence_reset(&session->sequence);
}

enum sluice_status sluice_session_fill(sluice_session *session, uint32_t n, uint64_t seed,
                                       struct sluice_error *err)
{
    if (session->sequence.position)
        return err_set(err, SLUICE_E_STATE,
                       "a session of %u tokens is to be filled, not an empty one",
                       session->sequence.position);
    return sequence_fill(&session->sequence, n, seed, err);
}

uint32_t sluice_session_position(const sluice_session *session)
{
    return session->sequence.position;
}

uint32_t sluice_session_capacity(const sluice_session *session)
{
    return session->sequence.n_ctx;
}

/* Opening tiny models: those that must work, and those that must be refused. */
#ifndef TESTS_TINY_OPEN_H
#define TESTS_TINY_OPEN_H

#include <stdlib.h>

#include "check.h"
#include "model/model.h"
#include "tiny_model.h"

struct opened {
    struct tempdir dir;
    struct checkpoint cp;
    struct model m;
};

struct log_lines {
    char text[1024];
};

static inline void keep_line(void *user, enum sluice_log_level level, const char *message)
{
    struct log_lines *log = user;
    size_t len = strlen(log->text);
    snprintf(log->text + len, sizeof log->text - len, "%d:%s\n", (int)level, message);
}

/* Writes, opens and binds; what was opened must be closed, also after an error. */
static inline enum sluice_status open_tiny(struct opened *o, const struct tiny *t, uint32_t n_picks,
                                           const struct log *log, struct sluice_error *err)
{
    *o = (struct opened){.m = {.n_experts = 0}};
    if (!tempdir_make(&o->dir) || !tiny_write(t, &o->dir)) abort();
    struct model_options options = {.n_picks = n_picks, .log = log};
    TRY(checkpoint_open(&o->cp, o->dir.path, err));
    return model_init(&o->m, &o->cp, &options, err);
}

static inline void close_tiny(struct opened *o)
{
    model_release(&o->m);
    checkpoint_release(&o->cp);
    tempdir_remove(&o->dir);
}

/* The folder's name, which differs from run to run, becomes DIR. */
static inline void hide_folder(const struct opened *o, struct sluice_error *err)
{
    char *at = strstr(err->message, o->dir.path);
    if (!at) return;
    const char *rest = at + strlen(o->dir.path);
    memcpy(at, "DIR", 3);
    memmove(at + 3, rest, strlen(rest) + 1);
}

/* A tiny model t with changes applied must be refused with exactly this message. */
#define REFUSED(code_, text, layout, ...)                                                          \
    do {                                                                                           \
        static struct tiny tiny;                                                                   \
        struct tiny *t = &tiny;                                                                    \
        struct sluice_error err = {0};                                                             \
        struct opened o;                                                                           \
        tiny_init(t, layout);                                                                      \
        __VA_ARGS__;                                                                               \
        CHECK(open_tiny(&o, t, 0, NULL, &err) == SLUICE_E_##code_, "%d", (int)err.code);           \
        hide_folder(&o, &err);                                                                     \
        CHECK(strcmp(err.message, text) == 0, "got '%s'", err.message);                            \
        close_tiny(&o);                                                                            \
        tiny_release(t);                                                                           \
    } while (0)

/* Opens t, which must work. */
static inline void open_good(struct opened *o, struct tiny *t)
{
    struct sluice_error err = {0};
    CHECK_OK(open_tiny(o, t, 0, NULL, &err));
    tiny_release(t);
}

static inline const struct weight_data *bound(const struct opened *o, enum weight_role role)
{
    for (size_t i = 0; i < o->m.graph.weights.n; i++)
        if (o->m.graph.weights.items[i].role == role) return &o->m.weights[i];
    abort();
}

#define O_PROJ "model.layers.1.self_attn.o_proj"
/* The output projection packed to 4 bits by 32, with this section in the config. */
#define PACKED_REFUSED(code_, text, section, ...)                                                  \
    REFUSED(code_, text, TINY_SEPARATE, tiny_pack(t, O_PROJ, 4, 32);                               \
            if (*(section)) tiny_field(t, section); __VA_ARGS__)

#endif

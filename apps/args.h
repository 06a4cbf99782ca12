/*
 * The command line: parsed by the tables commands.def and options.def, which also give the help.
 * Knows nothing of models. Everything in struct args points into argv or is owned by it.
 */
#ifndef APPS_ARGS_H
#define APPS_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "sluice/sluice.h"

enum command {
#define C(id, name, synopsis, summary) COMMAND_##id,
#include "commands.def"
#undef C
    N_COMMANDS,
};

enum option_id {
#define O(field, ...) OPTION_##field,
#include "options.def"
#undef O
    N_OPTIONS,
};

struct texts {
    const char **items;
    size_t n;
};

/* Counts and sizes that may be given several times. */
struct numbers {
    uint64_t *items;
    size_t n;
};

struct biases {
    struct sluice_logit_bias *items;
    size_t n;
};

/* C type of each KIND of options.def. */
typedef bool option_FLAG;
typedef const char *option_TEXT;
typedef uint64_t option_COUNT;
typedef uint64_t option_BYTES;
typedef double option_REAL;
typedef unsigned option_CHOICE; /* the place among the words of its argument */
typedef enum sluice_precision option_PRECISION;
typedef struct texts option_TEXTS;
typedef struct numbers option_COUNTS;
typedef struct numbers option_SIZES;
typedef struct biases option_BIASES;

struct args {
    enum command command;
    const char *model;  /* NULL: the shipped one */
    const char *folder; /* pack: where to */
    bool given[N_OPTIONS];
#define O(field, name, kind, ...) option_##kind field;
#include "options.def"
#undef O
};

#define ARG_GIVEN(args, field) ((args)->given[OPTION_##field])

/*
 * Parses argv[1] as a command and the rest as its options. False: usage error, and message has
 * one sentence about it. args is released in both cases.
 */
bool args_parse(struct args *args, int argc, char **argv, struct buffer *message);
void args_release(struct args *args);

/* The last of several, or 0. */
uint64_t numbers_last(const struct numbers *numbers);

/* Whether argv[1] names a command; if so, which. */
bool command_find(const char *name, enum command *command);
/* The sentence about a command that does not exist. */
void command_unknown(const char *name, struct buffer *message);

/* What `sluice help` and `sluice help COMMAND` print. */
void help_overview(struct buffer *out);
void help_command(enum command command, struct buffer *out);

#endif

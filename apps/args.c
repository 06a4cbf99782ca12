#include "args.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nearest.h"

enum kind { FLAG, TEXT, COUNT, REAL, PRECISION, CHOICE, TEXTS, COUNTS, SIZES, BIASES };

enum {
#define C(id, name, synopsis, summary) BIT_##id = 1 << COMMAND_##id,
#include "commands.def"
#undef C
    RUN = BIT_run,
    LOGITS = BIT_logits,
    PERPLEXITY = BIT_perplexity,
    TOKENIZE = BIT_tokenize,
    DETOKENIZE = BIT_detokenize,
    INSPECT = BIT_inspect,
    SYNTH = BIT_synth,
    PACK = BIT_pack,
    BENCH = BIT_bench,
    TRACE = BIT_trace,
    CACHE_SIM = BIT_cache_sim,
    EVALUATES = RUN | LOGITS | PERPLEXITY | BENCH | TRACE,
    ENGINE = EVALUATES | INSPECT, /* what opens a model */
    ALL_COMMANDS = (1 << N_COMMANDS) - 1,
};

struct option {
    const char *name;
    const char *arg;
    const char *preset; /* the default; "" for none */
    const char *range;
    const char *help;
    size_t offset; /* of the field in struct args */
    enum kind kind;
    unsigned commands;
};

static const struct option options[] = {
#define O(field, name, kind, arg, preset, range, commands, help)                                   \
    {name, arg, preset, range, help, offsetof(struct args, field), kind, commands},
#include "options.def"
#undef O
};

static const struct {
    const char *name, *synopsis, *summary;
} commands[] = {
#define C(id, name, synopsis, summary) {name, synopsis, summary},
#include "commands.def"
#undef C
};

/* Numbers and ranges */

static bool parse_count(const char *text, uint64_t *value)
{
    if (!isdigit((unsigned char)*text)) return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    *value = v;
    return *end == '\0' && errno == 0;
}

/* A count with K, M or G, powers of 1024, behind it; fractions as in 1.5G are fine. */
static bool parse_bytes(const char *text, uint64_t *value)
{
    static const char units[] = "KMG";
    if (!isdigit((unsigned char)*text)) return false;
    char *end;
    double number = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (*end && (!unit || end[1] != '\0')) return false;
    for (const char *u = units; unit && u <= unit; u++) number *= 1024;
    if (!(number >= 1 && number < 0x1p63)) return false;
    *value = (uint64_t)number;
    return true;
}

static bool parse_real(const char *text, double *value)
{
    if (*text == '\0' || isspace((unsigned char)*text)) return false;
    char *end;
    *value = strtod(text, &end);
    /* What is finite is finite as a float too. */
    return *end == '\0' && !isnan(*value) && !(isfinite(*value) && fabs(*value) > (double)FLT_MAX);
}

static bool count_in_range(uint64_t value, const char *range)
{
    char *comma;
    uint64_t low = strtoull(range + 1, &comma, 10);
    uint64_t high = strtoull(comma + 1, NULL, 10);
    return value >= low && value <= high;
}

static bool real_in_range(double value, const char *range)
{
    char *comma;
    char *end;
    double low = strtod(range + 1, &comma);
    double high = strtod(comma + 1, &end);
    bool above = *range == '[' ? value >= low : value > low;
    bool below = *end == ']' ? value <= high : value < high;
    return above && below;
}

/* Storing a value in its field */

static bool store_bias(struct biases *list, const char *value)
{
    const char *equals = strchr(value, '=');
    if (!equals || !isdigit((unsigned char)*value)) return false;
    char *end;
    errno = 0;
    unsigned long id = strtoul(value, &end, 10);
    double bias;
    if (errno || end != equals || id > INT32_MAX || !parse_real(equals + 1, &bias)) return false;
    struct sluice_logit_bias *grown = realloc(list->items, (list->n + 1) * sizeof *grown);
    if (!grown) return false;
    grown[list->n++] = (struct sluice_logit_bias){.id = (int32_t)id, .bias = (float)bias};
    list->items = grown;
    return true;
}

static bool store_text(struct texts *list, const char *value)
{
    if (*value == '\0') return false;
    const char **grown = realloc(list->items, (list->n + 1) * sizeof *grown);
    if (!grown) return false;
    grown[list->n++] = value;
    list->items = grown;
    return true;
}

static bool store_number(struct numbers *list, uint64_t number)
{
    uint64_t *grown = realloc(list->items, (list->n + 1) * sizeof *grown);
    if (!grown) return false;
    grown[list->n++] = number;
    list->items = grown;
    return true;
}

static bool store_precision(enum sluice_precision *precision, const char *value)
{
    if (strcmp(value, "exact") == 0) {
        *precision = SLUICE_EXACT;
    } else if (strcmp(value, "fast") == 0) {
        *precision = SLUICE_FAST;
    } else {
        return false;
    }
    return true;
}

/* The place of value in a list like "mlx|bf16". */
static bool store_choice(unsigned *choice, const char *list, const char *value)
{
    size_t len = strlen(value);
    for (unsigned i = 0; *list; i++) {
        size_t n = strcspn(list, "|");
        if (n == len && memcmp(list, value, n) == 0) {
            *choice = i;
            return true;
        }
        list += n + (list[n] == '|');
    }
    return false;
}

static bool store(const struct option *o, struct args *args, const char *value)
{
    void *field = (char *)args + o->offset;
    uint64_t number;
    switch (o->kind) {
    case FLAG: *(bool *)field = true; return true;
    case TEXT: *(const char **)field = value; return true;
    case COUNT: {
        uint64_t *count = field;
        return parse_count(value, count) && count_in_range(*count, o->range);
    }
    case REAL: {
        double *real = field;
        return parse_real(value, real) && real_in_range(*real, o->range);
    }
    case PRECISION: return store_precision(field, value);
    case CHOICE: return store_choice(field, o->arg, value);
    case TEXTS: return store_text(field, value);
    case COUNTS:
        return parse_count(value, &number) && count_in_range(number, o->range) &&
               store_number(field, number);
    case SIZES: return parse_bytes(value, &number) && store_number(field, number);
    case BIASES: return store_bias(field, value);
    }
    return false;
}

/* What a value of the option is, for a message. */
static void describe_values(const struct option *o, struct buffer *out)
{
    switch (o->kind) {
    case COUNT:
    case COUNTS: buffer_printf(out, "a whole number in %s", o->range); break;
    case REAL: buffer_printf(out, "a number in %s", o->range); break;
    case SIZES: buffer_text(out, "a size as in 800M or 12G"); break;
    case PRECISION: buffer_text(out, "'exact' or 'fast'"); break;
    case CHOICE: buffer_printf(out, "one of %s", o->arg); break;
    case BIASES: buffer_text(out, "a token id and a number as in 42=-1.5"); break;
    case TEXTS:
    case TEXT:
    case FLAG: buffer_text(out, "a text that is not empty"); break;
    }
}

/* Finding options */

static const struct option *find_option(const char *name, size_t len)
{
    if (len == 2 && memcmp(name, "-h", 2) == 0) return &options[OPTION_help];
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0)
            return &options[i];
    return NULL;
}

static void unknown_option(const char *name, size_t len, enum command command,
                           struct buffer *message)
{
    const char *names[N_OPTIONS];
    size_t n = 0;
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].commands & 1u << command) names[n++] = options[i].name;
    buffer_printf(message, "'%s' has no option '%.*s'", commands[command].name, (int)len, name);
    const char *near = nearest(name, len, names, n);
    if (near) {
        buffer_printf(message, "; did you mean '%s'?", near);
    } else {
        buffer_printf(message, "; 'sluice help %s' lists them", commands[command].name);
    }
}

static void misplaced_option(const struct option *o, enum command command, struct buffer *message)
{
    buffer_printf(message, "option '%s' does not apply to '%s', only to", o->name,
                  commands[command].name);
    const char *separator = " ";
    for (unsigned c = 0; c < N_COMMANDS; c++) {
        if (!(o->commands & 1u << c)) continue;
        buffer_printf(message, "%s'%s'", separator, commands[c].name);
        separator = ", ";
    }
}

/* Takes argv[*i], an option, and its value if it has one. */
static bool take_option(struct args *args, int argc, char **argv, int *i, struct buffer *message)
{
    const char *word = argv[*i];
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    const struct option *o = find_option(word, len);
    if (!o) {
        unknown_option(word, len, args->command, message);
        return false;
    }
    if (!(o->commands & 1u << args->command)) {
        misplaced_option(o, args->command, message);
        return false;
    }
    const char *value = equals ? equals + 1 : NULL;
    if (o->kind == FLAG && value) {
        buffer_printf(message, "option '%s' takes no value", o->name);
        return false;
    }
    if (o->kind != FLAG && !value) {
        if (*i + 1 >= argc) {
            buffer_printf(message, "option '%s' needs a value: %s %s", o->name, o->name, o->arg);
            return false;
        }
        value = argv[++*i];
    }
    if (!store(o, args, value)) {
        buffer_printf(message, "option '%s' takes ", o->name);
        describe_values(o, message);
        buffer_printf(message, ", not '%s'", value);
        return false;
    }
    args->given[o - options] = true;
    return true;
}

static bool take_model(struct args *args, const char *word, struct buffer *message)
{
    if (args->command == COMMAND_pack && args->model && !args->folder) {
        if (*word) args->folder = word;
        if (!*word) buffer_text(message, "DIR is empty; name the folder to write");
        return args->folder != NULL;
    }
    if (args->model) {
        buffer_printf(message, "'%s' takes one MODEL, but got '%s' and '%s'",
                      commands[args->command].name, args->model, word);
        return false;
    }
    if (*word == '\0') {
        buffer_text(message, "MODEL is empty; leave it out for the storyteller");
        return false;
    }
    args->model = word;
    return true;
}

/* Options that need each other or exclude each other */

static bool exactly_one(const struct args *args, const enum option_id *ids, size_t n,
                        struct buffer *message)
{
    size_t n_given = 0;
    for (size_t i = 0; i < n; i++) n_given += args->given[ids[i]];
    if (n_given == 1) return true;
    buffer_printf(message, "'%s' needs %s", commands[args->command].name,
                  n_given ? "only one of "
                  : n > 1 ? "one of "
                          : "");
    for (size_t i = 0; i < n; i++) {
        const char *separator = i == 0 ? "" : i + 1 < n ? ", " : " and ";
        buffer_printf(message, "%s'%s'", separator, options[ids[i]].name);
    }
    return false;
}

/* Options of one way to measure that make no sense in the other. */
static bool check_bench(const struct args *args, struct buffer *message)
{
    static const enum option_id streamed[] = {OPTION_route, OPTION_against, OPTION_gate,
                                              OPTION_probe};
    static const enum option_id resident[] = {OPTION_profile, OPTION_prefill, OPTION_context,
                                              OPTION_svg};
    bool lists = args->ram.n + args->slots.n > 1;
    for (size_t i = 0; i < sizeof streamed / sizeof *streamed && !args->stream; i++) {
        if (!args->given[streamed[i]]) continue;
        buffer_printf(message, "option '%s' of 'bench' needs '--stream'",
                      options[streamed[i]].name);
        return false;
    }
    for (size_t i = 0; i < sizeof resident / sizeof *resident && args->stream; i++) {
        if (!args->given[resident[i]]) continue;
        buffer_printf(message, "option '%s' of 'bench' does not go with '--stream'",
                      options[resident[i]].name);
        return false;
    }
    if (args->svg && !args->profile && args->context.n == 0) {
        buffer_text(message, "option '--svg' of 'bench' needs '--profile' or '--context'");
        return false;
    }
    if (!args->stream && lists) buffer_text(message, "several budgets of 'bench' need '--stream'");
    return args->stream || !lists;
}

/* One option says the opposite of the other. */
static bool check_verify(const struct args *args, struct buffer *message)
{
    static const enum option_id both[] = {OPTION_verify, OPTION_no_verify};
    return !args->verify || !args->no_verify || exactly_one(args, both, 2, message);
}

static bool check_combination(const struct args *args, struct buffer *message)
{
    static const enum option_id prompts[] = {OPTION_prompt, OPTION_prompt_file, OPTION_ids};
    static const enum option_id texts[] = {OPTION_ids, OPTION_text};
    static const enum option_id ids[] = {OPTION_ids};
    static const enum option_id out[] = {OPTION_out};
    if (!check_verify(args, message)) return false;
    switch (args->command) {
    case COMMAND_run: return exactly_one(args, prompts, 3, message);
    case COMMAND_perplexity: return exactly_one(args, texts, 2, message);
    case COMMAND_logits:
        return exactly_one(args, ids, 1, message) && exactly_one(args, out, 1, message);
    case COMMAND_synth:
        if (!args->model) buffer_text(message, "'synth' needs the folder to write");
        return args->model != NULL;
    case COMMAND_pack:
        if (!args->folder) buffer_text(message, "'pack' needs the model and the folder to write");
        return args->folder != NULL;
    case COMMAND_trace:
        return exactly_one(args, prompts, 3, message) && exactly_one(args, out, 1, message);
    case COMMAND_cache_sim:
        if (!args->model) buffer_text(message, "'cache-sim' needs the trace to replay");
        return args->model != NULL;
    case COMMAND_bench: return check_bench(args, message);
    case COMMAND_tokenize:
    case COMMAND_detokenize:
    case COMMAND_inspect:
    case N_COMMANDS: break;
    }
    return true;
}

bool args_parse(struct args *args, int argc, char **argv, struct buffer *message)
{
    *args = (struct args){0};
    if (argc < 2 || !command_find(argv[1], &args->command)) {
        command_unknown(argc < 2 ? "" : argv[1], message);
        return false;
    }
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (*options[i].preset) store(&options[i], args, options[i].preset);
    bool only_words = false;
    for (int i = 2; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
            continue;
        }
        bool is_option = !only_words && argv[i][0] == '-' && argv[i][1] != '\0';
        bool good = is_option ? take_option(args, argc, argv, &i, message)
                              : take_model(args, argv[i], message);
        if (!good) return false;
        if (args->help) return true;
    }
    return check_combination(args, message);
}

void args_release(struct args *args)
{
    free(args->stop.items);
    free(args->logit_bias.items);
    free(args->context.items);
    free(args->prefill.items);
    free(args->ram.items);
    free(args->slots.items);
    free(args->capacity.items);
    free(args->shard_size.items);
    *args = (struct args){0};
}

uint64_t numbers_last(const struct numbers *numbers)
{
    return numbers->n ? numbers->items[numbers->n - 1] : 0;
}

/* Commands and help */

bool command_find(const char *name, enum command *command)
{
    for (int c = 0; c < N_COMMANDS; c++) {
        if (strcmp(commands[c].name, name) != 0) continue;
        *command = (enum command)c;
        return true;
    }
    return false;
}

void command_unknown(const char *name, struct buffer *message)
{
    static const char *const names[] = {
#define C(id, name, synopsis, summary) name,
#include "commands.def"
#undef C
        "help",
        "--help",
        "--version",
    };
    if (*name == '\0') {
        buffer_text(message, "no command was given; 'sluice help' lists them");
        return;
    }
    buffer_printf(message, "there is no command '%s'", name);
    const char *near = nearest(name, strlen(name), names, sizeof names / sizeof *names);
    if (near) {
        buffer_printf(message, "; did you mean '%s'?", near);
    } else {
        buffer_text(message, "; 'sluice help' lists them");
    }
}

void help_overview(struct buffer *out)
{
    buffer_text(out, "usage: sluice COMMAND [MODEL] [options]\n\n"
                     "Runs Mixture-of-Experts language models.\n\ncommands:\n");
    for (int c = 0; c < N_COMMANDS; c++)
        buffer_printf(out, "  %-12s%s\n", commands[c].name, commands[c].summary);
    buffer_text(out, "\nMODEL is a folder with config.json and safetensors files; without it the\n"
                     "storyteller that comes with sluice is used. 'sluice help COMMAND' lists the\n"
                     "options of a command, 'sluice --version' prints the version.\n");
}

void help_command(enum command command, struct buffer *out)
{
    buffer_printf(out, "usage: sluice %s %s\n\n%s\n\noptions:\n", commands[command].name,
                  commands[command].synopsis, commands[command].summary);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        if (!(o->commands & 1u << command)) continue;
        buffer_printf(out, "  %s%s%s\n        %s", o->name, *o->arg ? " " : "", o->arg, o->help);
        if (*o->preset) buffer_printf(out, " (default %s)", o->preset);
        buffer_text(out, "\n");
    }
}

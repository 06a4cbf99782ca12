#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "interrupt.h"
#include "report.h"
#include "std_streams.h"

enum { EXIT_USAGE = 2, EXIT_BY_SIGNAL = 128 };

static int usage_error(const struct buffer *message)
{
    say("%s", message->failed ? "out of memory" : message->data);
    return EXIT_USAGE;
}

/* Prints a text that needs no model, and gives the exit code. */
static int print_text(const struct buffer *text)
{
    struct output out;
    struct sluice_error err;
    output_init(&out, STDOUT_FILENO);
    output_buffer(&out, text);
    if (output_status(&out, &err) == SLUICE_OK) return EXIT_SUCCESS;
    say("%s", err.message);
    return EXIT_FAILURE;
}

static int print_help(const char *name)
{
    struct buffer text = {0};
    enum command command;
    int code;
    if (!name) {
        help_overview(&text);
        code = print_text(&text);
    } else if (command_find(name, &command)) {
        help_command(command, &text);
        code = print_text(&text);
    } else {
        command_unknown(name, &text);
        code = usage_error(&text);
    }
    buffer_release(&text);
    return code;
}

static int cmd_help(int n, char **names)
{
    if (n <= 1) return print_help(n == 1 ? names[0] : NULL);
    struct buffer text = {0};
    buffer_printf(&text, "'help' takes one COMMAND, but got '%s' and '%s'", names[0], names[1]);
    int code = usage_error(&text);
    buffer_release(&text);
    return code;
}

static int print_version(void)
{
    struct buffer text = {0};
    buffer_printf(&text, "sluice %s\n", sluice_version());
    int code = print_text(&text);
    buffer_release(&text);
    return code;
}

/* The level of SLUICE_LOG; warnings only when it is not set. */
static enum sluice_log_level log_level(void)
{
    const char *name = getenv("SLUICE_LOG");
    if (!name || strcmp(name, "warning") == 0) return SLUICE_LOG_WARNING;
    if (strcmp(name, "info") == 0) return SLUICE_LOG_INFO;
    if (strcmp(name, "debug") == 0) return SLUICE_LOG_DEBUG;
    say("warning: SLUICE_LOG is '%s', not 'warning', 'info' or 'debug'", name);
    return SLUICE_LOG_WARNING;
}

static int run_command(const struct args *args)
{
    static enum sluice_status (*const commands[])(struct app *, struct sluice_error *) = {
#define C(id, name, synopsis, summary) cmd_##id,
#include "commands.def"
#undef C
    };
    struct app app = {.args = args, .log_level = log_level()};
    struct sluice_error err = {0};
    output_init(&app.out, STDOUT_FILENO);
    progress_init(&app.progress, isatty(STDERR_FILENO));
    enum sluice_status status = commands[args->command](&app, &err);
    progress_end(&app.progress);
    if (status == SLUICE_OK) status = output_status(&app.out, &err);
    if (status == SLUICE_OK) return EXIT_SUCCESS;
    if (status == SLUICE_E_CANCELLED && interrupt_signal())
        return EXIT_BY_SIGNAL + interrupt_signal();
    say("%s", err.message);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    std_streams_hold();
    interrupt_install();
    const char *first = argc > 1 ? argv[1] : "";
    if (strcmp(first, "--version") == 0) return print_version();
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) return print_help(NULL);
    if (strcmp(first, "help") == 0) return cmd_help(argc - 2, argv + 2);

    struct args args;
    struct buffer message = {0};
    int code;
    if (!args_parse(&args, argc, argv, &message)) {
        code = usage_error(&message);
    } else if (args.help) {
        code = print_help(argv[1]);
    } else {
        code = run_command(&args);
    }
    args_release(&args);
    buffer_release(&message);
    return code;
}

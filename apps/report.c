#include "report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void say(const char *fmt, ...)
{
    char line[1200] = "sluice: ";
    size_t used = strlen(line);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + used, sizeof line - used - 1, fmt, args);
    va_end(args);
    /* A file name or a text from a model may hold anything; a terminal must not obey it. */
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    size_t len = strlen(line);
    line[len++] = '\n';
    /* One write, so that lines of several processes do not mix. Nothing helps when it fails. */
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written;
}

enum sluice_status fail(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    err->code = code;
    return code;
}

enum sluice_status fail_in(struct sluice_error *err, const char *file)
{
    struct sluice_error inner = *err;
    return fail(err, inner.code, "%.200s: %.280s", file, inner.message);
}

enum sluice_status fail_nomem(struct sluice_error *err, const char *what)
{
    return fail(err, SLUICE_E_NOMEM, "%s: out of memory", what);
}

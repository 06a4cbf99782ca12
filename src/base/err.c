#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *sluice_status_text(enum sluice_status status)
{
    switch (status) {
    case SLUICE_OK: return "success";
#define E(name, value, text)                                                                       \
    case SLUICE_E_##name:                                                                          \
        return text;
#include "sluice/errors.def"
#undef E
    }
    return "unknown status";
}

const char *sluice_version(void)
{
    return SLUICE_VERSION_STRING;
}

/* Room for a sentence before it is shortened: two paths fit. */
enum { LONGEST = 2 * 4096 + 512 };

static bool inside_character(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Keeps both ends of what is too long: a path stands before the reason. */
static void put(struct sluice_error *err, const char *text)
{
    static const char gap[] = " ... ";
    size_t len = strlen(text), cap = sizeof err->message - 1;
    if (len <= cap) {
        memcpy(err->message, text, len + 1);
        return;
    }
    size_t head = cap / 2, tail = cap - head - (sizeof gap - 1);
    while (head && inside_character(text[head])) head--;
    while (tail && inside_character(text[len - tail])) tail--;
    snprintf(err->message, sizeof err->message, "%.*s%s%s", (int)head, text, gap,
             text + len - tail);
}

enum sluice_status err_set(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
{
    if (!err) return code;
    char text[LONGEST];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    put(err, text);
    err->code = code;
    return code;
}

enum sluice_status err_wrap(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
{
    if (!err) return code;
    char text[LONGEST];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, LONGEST - sizeof err->message - 2, fmt, args);
    va_end(args);
    if (n < 0) text[0] = '\0';
    size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, ": %s", err->message);
    put(err, text);
    err->code = code;
    return code;
}

enum sluice_status err_nomem(struct sluice_error *err, const char *what, size_t bytes)
{
    return err_set(err, SLUICE_E_NOMEM, "%s: out of memory (%zu bytes wanted)", what, bytes);
}

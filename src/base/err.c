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

enum sluice_status err_set(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    err->code = code;
    return code;
}

enum sluice_status err_wrap(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
{
    if (!err) return code;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    if (n < 0) n = 0;
    size_t used = (size_t)n < sizeof err->message ? (size_t)n : sizeof err->message - 1;
    size_t room = sizeof err->message - used;
    if (room > 3) snprintf(err->message + used, room, ": %.*s", (int)(room - 3), old);
    err->code = code;
    return code;
}

enum sluice_status err_nomem(struct sluice_error *err, const char *what, size_t bytes)
{
    return err_set(err, SLUICE_E_NOMEM, "%s: out of memory (%zu bytes wanted)", what, bytes);
}

/* A log that someone else prints: a callback, or nothing. The library never writes to stdio. */
#ifndef SLUICE_BASE_LOG_H
#define SLUICE_BASE_LOG_H

#include "base/err.h"

struct log {
    sluice_log_fn *fn; /* NULL: silent */
    void *user;
};

void log_write(const struct log *log, enum sluice_log_level level, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

#endif

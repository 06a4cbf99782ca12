/* What the program says: sentences on standard error, and errors inside the program. */
#ifndef APPS_REPORT_H
#define APPS_REPORT_H

#include "sluice/sluice.h"

/* "sluice: " and the sentence on standard error, as one line: what is below ' ' becomes '?'. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Sets code and message of err. Returns code. */
enum sluice_status fail(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts the name of the file before the message of err. Returns err's code. */
enum sluice_status fail_in(struct sluice_error *err, const char *file);

enum sluice_status fail_nomem(struct sluice_error *err, const char *what);

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum sluice_status try_status_ = (expr);                                                   \
        if (try_status_ != SLUICE_OK) return try_status_;                                          \
    } while (0)

#endif

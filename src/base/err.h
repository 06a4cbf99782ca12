/*
 * Errors inside the library. A function that can fail returns enum sluice_status and says in
 * struct sluice_error what failed; codes are for programs, messages for people. Messages are one
 * sentence, lower case, without a full stop, and name the failing thing first.
 */
#ifndef SLUICE_BASE_ERR_H
#define SLUICE_BASE_ERR_H

#include "sluice/sluice.h"

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

/*
 * Sets code and message, unless err is NULL. A message that is too long loses its middle. Returns
 * code, so that `return err_set(...)` reads.
 */
enum sluice_status err_set(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* Puts a prefix and ": " before the message of err, unless err is NULL. Returns code. */
enum sluice_status err_wrap(struct sluice_error *err, enum sluice_status code, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* The common out-of-memory error: what the memory was for, and how much. */
enum sluice_status err_nomem(struct sluice_error *err, const char *what, size_t bytes);

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum sluice_status try_status_ = (expr);                                                   \
        if (try_status_ != SLUICE_OK) return try_status_;                                          \
    } while (0)

/* TRY for functions with one cleanup label; needs `enum sluice_status status` in scope. */
#define TRY_GOTO(label, expr)                                                                      \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (status != SLUICE_OK) goto label;                                                       \
    } while (0)

#endif

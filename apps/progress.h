/*
 * A progress line on standard error: bar, counts, rate and the time that is left. It appears on
 * terminals only, after a second, and is wiped at the end.
 */
#ifndef APPS_PROGRESS_H
#define APPS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    bool enabled; /* standard error is a terminal */
    bool shown;
    const char *label; /* "evaluating" */
    const char *unit;  /* "tokens" */
    size_t done, total;
    uint64_t began_at, drawn_at; /* ns */
};

void progress_init(struct progress *p, bool enabled);
void progress_begin(struct progress *p, const char *label, const char *unit, size_t total);
void progress_update(struct progress *p, size_t done);
/* Wipes the line; it comes back with the next update. For printing something else. */
void progress_hide(struct progress *p);
void progress_end(struct progress *p);

/*
 * The line for a terminal of so many columns, elapsed ns after the beginning; always shorter than
 * columns. Returns its length. The bar is left out when there is no room for it.
 */
size_t progress_line(const struct progress *p, uint64_t elapsed, size_t columns, char *line,
                     size_t cap);

#endif

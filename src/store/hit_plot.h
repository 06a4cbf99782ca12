/*
 * An SVG picture of hit rates over the number of slots: one line per policy, axes, a legend. It
 * stands alone: no scripts, no style sheets, the viewer's own sans-serif font.
 */
#ifndef SLUICE_STORE_HIT_PLOT_H
#define SLUICE_STORE_HIT_PLOT_H

#include "base/err.h"

enum { PLOT_MAX_LINES = 8 };

struct plot_line {
    const char *name;
    const double *rates; /* [n_points], 0 to 1 */
    bool dashed;         /* a bound rather than a policy */
};

struct hit_plot {
    const char *title; /* any UTF-8 */
    const char *x_label;
    const uint32_t *capacities; /* [n_points], ascending, at least 1 */
    uint32_t n_points;          /* at least 1 */
    const struct plot_line *lines;
    uint32_t n_lines; /* 1 to PLOT_MAX_LINES */
};

typedef enum sluice_status plot_write_fn(void *user, const void *data, size_t len,
                                         struct sluice_error *err);

/* Errors: ARGUMENT (something out of range; nothing was written), and those of write. */
enum sluice_status hit_plot_write(const struct hit_plot *plot, plot_write_fn *write, void *user,
                                  struct sluice_error *err);

#endif

#include "store/hit_plot.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Coordinates are whole numbers: printf writes fractions as the program's locale has them. */
enum {
    WIDTH = 9600,
    HEIGHT = 5600,
    LEFT = 900,
    RIGHT = 7700,
    TOP = 800,
    BOTTOM = 4700,
    MAX_TICKS = 8,
    MAX_MARKS = 40 /* points on a line beyond which they are not marked */
};

/* Colours that are told apart with any colour vision (after Okabe and Ito, 2008). */
static const char *const colours[PLOT_MAX_LINES] = {"#0072b2", "#e69f00", "#009e73", "#d55e00",
                                                    "#555555", "#cc79a7", "#56b4e9", "#a08c00"};

struct svg {
    plot_write_fn *write;
    void *user;
    struct sluice_error *err;
    enum sluice_status status; /* sticky */
    size_t n;
    char buffer[4096];
};

static void flush(struct svg *svg)
{
    if (svg->status == SLUICE_OK && svg->n)
        svg->status = svg->write(svg->user, svg->buffer, svg->n, svg->err);
    svg->n = 0;
}

enum { PIECE_MAX = 512 };

/* A piece shorter than PIECE_MAX. */
static void put(struct svg *svg, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void put(struct svg *svg, const char *fmt, ...)
{
    if (sizeof svg->buffer - svg->n < PIECE_MAX) flush(svg);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(svg->buffer + svg->n, PIECE_MAX, fmt, args);
    va_end(args);
    if (n > 0) svg->n += (size_t)n < PIECE_MAX ? (size_t)n : PIECE_MAX - 1;
}

/* Text of any length, with what means something in XML or is not allowed there replaced. */
static void put_text(struct svg *svg, const char *text)
{
    for (; *text; text++) {
        if (*text == '&')
            put(svg, "&amp;");
        else if (*text == '<')
            put(svg, "&lt;");
        else if (*text == '>')
            put(svg, "&gt;");
        else if (*text == '"')
            put(svg, "&quot;");
        else
            put(svg, "%c", (unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text);
    }
}

static uint32_t last_capacity(const struct hit_plot *plot)
{
    return plot->capacities[plot->n_points - 1];
}

static int x_of(const struct hit_plot *plot, uint64_t capacity)
{
    return LEFT + (int)(capacity * (RIGHT - LEFT) / last_capacity(plot));
}

static int y_of(double rate)
{
    return BOTTOM - (int)(rate * (BOTTOM - TOP) + 0.5);
}

/* The smallest of 1, 2, 5, 10, 20 ... that makes at most MAX_TICKS ticks. */
static uint64_t tick_step(uint32_t last)
{
    for (uint64_t power = 1;; power *= 10) {
        if (last / power <= MAX_TICKS) return power;
        if (last / (2 * power) <= MAX_TICKS) return 2 * power;
        if (last / (5 * power) <= MAX_TICKS) return 5 * power;
    }
}

static void put_begin(struct svg *svg, const struct hit_plot *plot)
{
    put(svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"960\" "
        "height=\"560\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"140\" "
        "fill=\"#333333\">\n<title>",
        WIDTH, HEIGHT);
    put_text(svg, plot->title);
    put(svg, "</title>\n<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n", WIDTH, HEIGHT);
    put(svg, "<text x=\"%d\" y=\"%d\" font-size=\"190\" font-weight=\"600\">", LEFT, TOP - 320);
    put_text(svg, plot->title);
    put(svg, "</text>\n");
}

static void put_axes(struct svg *svg, const struct hit_plot *plot)
{
    put(svg, "<g stroke=\"#dddddd\" stroke-width=\"10\">\n");
    for (int percent = 0; percent <= 100; percent += 20)
        put(svg, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", LEFT, y_of(percent / 100.0),
            RIGHT, y_of(percent / 100.0));
    uint64_t step = tick_step(last_capacity(plot));
    for (uint64_t c = 0; c <= last_capacity(plot); c += step)
        put(svg, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", x_of(plot, c), BOTTOM,
            x_of(plot, c), BOTTOM + 60);
    put(svg,
        "</g>\n<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#333333\" stroke-width=\"15\"/>\n",
        LEFT, TOP, BOTTOM, RIGHT);
    put(svg, "<g text-anchor=\"end\">\n");
    for (int percent = 0; percent <= 100; percent += 20)
        put(svg, "<text x=\"%d\" y=\"%d\">%d %%</text>\n", LEFT - 100, y_of(percent / 100.0) + 45,
            percent);
    put(svg, "</g>\n<g text-anchor=\"middle\">\n");
    for (uint64_t c = 0; c <= last_capacity(plot); c += step)
        put(svg, "<text x=\"%d\" y=\"%d\">%u</text>\n", x_of(plot, c), BOTTOM + 220, (unsigned)c);
    put(svg, "<text x=\"%d\" y=\"%d\">", (LEFT + RIGHT) / 2, BOTTOM + 520);
    put_text(svg, plot->x_label);
    put(svg, "</text>\n<text transform=\"translate(250 %d) rotate(-90)\">hit rate</text>\n</g>\n",
        (TOP + BOTTOM) / 2);
}

static const char *dashes(const struct plot_line *line)
{
    return line->dashed ? " stroke-dasharray=\"80 60\"" : "";
}

static void put_line(struct svg *svg, const struct hit_plot *plot, uint32_t i)
{
    const struct plot_line *line = &plot->lines[i];
    put(svg,
        "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"25\" stroke-linejoin=\"round\"%s "
        "points=\"",
        colours[i], dashes(line));
    for (uint32_t p = 0; p < plot->n_points; p++)
        put(svg, "%s%d,%d", p ? " " : "", x_of(plot, plot->capacities[p]), y_of(line->rates[p]));
    put(svg, "\"/>\n");
    if (plot->n_points > MAX_MARKS) return;
    put(svg, "<g fill=\"%s\">\n", colours[i]);
    for (uint32_t p = 0; p < plot->n_points; p++)
        put(svg, "<circle cx=\"%d\" cy=\"%d\" r=\"40\"/>\n", x_of(plot, plot->capacities[p]),
            y_of(line->rates[p]));
    put(svg, "</g>\n");
}

static void put_legend(struct svg *svg, const struct hit_plot *plot)
{
    for (uint32_t i = 0; i < plot->n_lines; i++) {
        int y = TOP + 150 + 260 * (int)i;
        put(svg,
            "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"30\"%s/>\n",
            RIGHT + 200, y, RIGHT + 560, y, colours[i], dashes(&plot->lines[i]));
        put(svg, "<text x=\"%d\" y=\"%d\">", RIGHT + 660, y + 45);
        put_text(svg, plot->lines[i].name);
        put(svg, "</text>\n");
    }
}

static enum sluice_status check_plot(const struct hit_plot *plot, struct sluice_error *err)
{
    if (plot->n_points == 0 || plot->n_lines == 0 || plot->n_lines > PLOT_MAX_LINES)
        return err_set(err, SLUICE_E_ARGUMENT, "plot: %u lines of %u points, not 1 to %d of some",
                       plot->n_lines, plot->n_points, PLOT_MAX_LINES);
    for (uint32_t p = 0; p < plot->n_points; p++) {
        if (plot->capacities[p] <= (p ? plot->capacities[p - 1] : 0))
            return err_set(err, SLUICE_E_ARGUMENT,
                           "plot: capacity %u (%u) is not over the one before", p,
                           plot->capacities[p]);
        for (uint32_t i = 0; i < plot->n_lines; i++)
            if (!(plot->lines[i].rates[p] >= 0 && plot->lines[i].rates[p] <= 1))
                return err_set(err, SLUICE_E_ARGUMENT,
                               "plot: '%.40s': point %u: rate %g, not 0 to 1", plot->lines[i].name,
                               p, plot->lines[i].rates[p]);
    }
    return SLUICE_OK;
}

enum sluice_status hit_plot_write(const struct hit_plot *plot, plot_write_fn *write, void *user,
                                  struct sluice_error *err)
{
    TRY(check_plot(plot, err));
    struct svg svg = {.write = write, .user = user, .err = err, .status = SLUICE_OK};
    put_begin(&svg, plot);
    put_axes(&svg, plot);
    for (uint32_t i = 0; i < plot->n_lines; i++) put_line(&svg, plot, i);
    put_legend(&svg, plot);
    put(&svg, "</svg>\n");
    flush(&svg);
    return svg.status;
}

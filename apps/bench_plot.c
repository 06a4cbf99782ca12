/*
 * The plot of `sluice bench --svg`: the time of a token over its context beside the time that
 * reading takes, and the ops of decoding with the part of their time that the limits explain.
 * Coordinates are whole numbers: printf writes fractions as the program's locale has them.
 */
#include "bench_resident.h"

enum { WIDTH = 960, LEFT = 240, RIGHT = 900, ROW = 22, MOST_BARS = 20, LINE_HEIGHT = 360 };

static void put_text(struct buffer *svg, int x, int y, const char *anchor, const char *text)
{
    buffer_printf(svg, "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\">", x, y, anchor);
    for (; *text; text++) {
        if (*text == '&' || *text == '<')
            buffer_text(svg, *text == '&' ? "&amp;" : "&lt;");
        else
            buffer_add(svg, (unsigned char)*text < 0x20 ? " " : text, 1);
    }
    buffer_text(svg, "</text>\n");
}

static void put_rect(struct buffer *svg, int x, int y, int width, int height, const char *fill)
{
    buffer_printf(svg, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n", x, y,
                  width, height, fill);
}

/* Microseconds of a token, the median. */
static double us_of(const struct resident *b, const struct phase *p)
{
    double rates[MOST_ROUNDS];
    for (size_t i = 0; i < b->rounds; i++) rates[i] = p->rates[i];
    return 1e6 / spread_of(rates, b->rounds).median;
}

/* Where a phase of some context is in the plot, from 0 to 1. */
struct frame {
    double most_context, most_us;
    int top;
};

static void put_point(struct buffer *svg, const struct frame *f, double context, double us,
                      const char *separator)
{
    buffer_printf(svg, "%s%d,%d", separator,
                  LEFT + (int)(context / f->most_context * (RIGHT - LEFT)),
                  f->top + LINE_HEIGHT - (int)(us / f->most_us * LINE_HEIGHT));
}

static void put_contexts(const struct resident *b, int top, struct buffer *svg)
{
    const struct phase *at = b->phases + (b->n_phases - b->n_contexts);
    double rate = resident_limits(b).bytes;
    struct frame f = {.top = top};
    for (size_t i = 0; i < b->n_contexts; i++) {
        double us = us_of(b, &at[i]);
        if (at[i].context > f.most_context) f.most_context = at[i].context;
        if (us > f.most_us) f.most_us = us;
    }
    buffer_printf(svg, "<path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"#333333\"/>\n", LEFT, top,
                  top + LINE_HEIGHT, RIGHT);
    for (int limit = 0; limit < 2; limit++) {
        buffer_printf(svg, "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"%s\" points=\"",
                      limit ? "#999999" : "#0072b2");
        for (size_t i = 0; i < b->n_contexts; i++)
            put_point(svg, &f, at[i].context, limit ? at[i].bytes * 1e6 / rate : us_of(b, &at[i]),
                      i ? " " : "");
        buffer_text(svg, "\"/>\n");
    }
    char text[64];
    snprintf(text, sizeof text, "%.0f us a token", f.most_us);
    put_text(svg, LEFT - 10, top + 5, "end", text);
    snprintf(text, sizeof text, "context of %.0f", f.most_context);
    put_text(svg, RIGHT, top + LINE_HEIGHT + 20, "end", text);
    put_text(svg, LEFT, top + LINE_HEIGHT + 20, "start",
             "blue: measured; grey: reading weights, keys, values and states");
}

/* The ops of decoding, the longest first: their time, and in it what the limits explain. */
static void put_bars(const struct resident *b, int top, struct buffer *svg)
{
    const struct phase *p = &b->phases[0];
    struct machine_limits limits = resident_limits(b);
    for (size_t i = 0; i < p->profile->n && i < MOST_BARS; i++) {
        const struct profile_row *r = &p->profile->rows[i];
        int y = top + (int)i * ROW;
        double share = (double)r->ns / (double)p->profile->rows[0].ns * (RIGHT - LEFT - 80);
        double part = profile_of_limit(r, &limits);
        char text[64];
        put_text(svg, LEFT - 10, y + 15, "end", r->name);
        put_rect(svg, LEFT, y, (int)share, ROW - 4, "#9ecae1");
        put_rect(svg, LEFT, y, (int)(share * (part < 1 ? part : 1)), ROW - 4, "#0072b2");
        snprintf(text, sizeof text, "%.1f us", (double)r->ns / 1e3 / p->n);
        put_text(svg, LEFT + (int)share + 8, y + 15, "start", text);
    }
}

void resident_plot(const struct resident *b, struct buffer *svg)
{
    size_t bars = b->phases[0].profile ? b->phases[0].profile->n : 0;
    if (bars > MOST_BARS) bars = MOST_BARS;
    int top = 70, height = top + (b->n_contexts ? LINE_HEIGHT + 70 : 0) + (int)bars * ROW + 20;
    buffer_printf(svg,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                  "height=\"%d\" font-family=\"system-ui, sans-serif\" font-size=\"13\" "
                  "fill=\"#333333\">\n",
                  WIDTH, height, WIDTH, height);
    put_rect(svg, 0, 0, WIDTH, height, "#ffffff");
    put_text(svg, 20, 30, "start", b->path.data);
    put_text(svg, 20, 50, "start",
             "decoding; bars: time of an op, dark: what reading and computing need at least");
    if (b->n_contexts) {
        put_contexts(b, top, svg);
        top += LINE_HEIGHT + 70;
    }
    if (bars) put_bars(b, top, svg);
    buffer_text(svg, "</svg>\n");
}

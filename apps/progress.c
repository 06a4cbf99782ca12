#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"

#define SECOND UINT64_C(1000000000)

enum { MAX_COLUMNS = 160, MAX_BAR = 30, MIN_BAR = 8 };

static size_t terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col < MAX_COLUMNS ? size.ws_col : MAX_COLUMNS;
}

/* Nothing helps when standard error cannot be written. */
static void print(const char *text, size_t len)
{
    ssize_t written = write(STDERR_FILENO, text, len);
    (void)written;
}

static void format_time(double seconds, char *text, size_t cap)
{
    uint64_t s = seconds < 360000 ? (uint64_t)(seconds + 0.5) : 360000;
    if (s >= 3600) {
        snprintf(text, cap, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(text, cap, "%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
    }
}

static size_t format_bar(double fraction, size_t width, char *text)
{
    size_t filled = (size_t)(fraction * (double)width);
    text[0] = '[';
    memset(text + 1, '#', filled);
    memset(text + 1 + filled, '-', width - filled);
    text[width + 1] = ']';
    text[width + 2] = ' ';
    return width + 3;
}

size_t progress_line(const struct progress *p, uint64_t elapsed, size_t columns, char *line,
                     size_t cap)
{
    double fraction = p->total ? (double)p->done / (double)p->total : 0;
    double seconds = (double)elapsed / (double)SECOND;
    double rate = seconds > 0 ? (double)p->done / seconds : 0;
    char left[32] = "-:--";
    if (rate > 0) format_time((double)(p->total - p->done) / rate, left, sizeof left);
    char text[MAX_COLUMNS * 2];
    snprintf(text, sizeof text, "%3.0f%% %zu/%zu %s, %.*f/s, %s left", fraction * 100, p->done,
             p->total, p->unit, rate < 10 ? 1 : 0, rate, left);

    char bar[MAX_BAR + 4] = "";
    size_t n_bar = 0;
    size_t used = strlen(p->label) + 1 + strlen(text);
    if (used + MIN_BAR + 4 < columns) {
        size_t width = columns - used - 4;
        n_bar = format_bar(fraction, width < MAX_BAR ? width : MAX_BAR, bar);
    }
    snprintf(line, cap, "%s %.*s%s", p->label, (int)n_bar, bar, text);
    size_t len = strlen(line);
    if (len >= columns) len = columns ? columns - 1 : 0;
    line[len] = '\0';
    return len;
}

void progress_init(struct progress *p, bool enabled)
{
    *p = (struct progress){.enabled = enabled};
}

void progress_begin(struct progress *p, const char *label, const char *unit, size_t total)
{
    p->label = label;
    p->unit = unit;
    p->total = total;
    p->done = 0;
    p->began_at = clock_ns();
    p->drawn_at = 0;
}

void progress_update(struct progress *p, size_t done)
{
    p->done = done < p->total ? done : p->total;
    if (!p->enabled) return;
    uint64_t now = clock_ns();
    uint64_t elapsed = now - p->began_at;
    if (elapsed < SECOND || now - p->drawn_at < SECOND / 10) return;
    char line[MAX_COLUMNS * 2 + 2] = "\r";
    size_t columns = terminal_columns();
    size_t len = progress_line(p, elapsed, columns, line + 1, sizeof line - 1);
    /* Blanks wipe what a longer line left behind, on any terminal. */
    while (len + 1 < columns) line[1 + len++] = ' ';
    print(line, len + 1);
    p->shown = true;
    p->drawn_at = now;
}

void progress_hide(struct progress *p)
{
    if (!p->shown) return;
    char line[MAX_COLUMNS + 2];
    size_t columns = terminal_columns();
    memset(line, ' ', sizeof line);
    line[0] = '\r';
    line[columns] = '\r';
    print(line, columns + 1);
    p->shown = false;
    p->drawn_at = 0;
}

void progress_end(struct progress *p)
{
    progress_hide(p);
    p->total = 0;
}

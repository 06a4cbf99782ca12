/* The SVG of hit rates: well-formed whatever the names, lines where the numbers say. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "store/hit_plot.h"

static struct sluice_error err;

struct text {
    char data[1 << 17];
    size_t n, limit;
};

static struct text svg;

static enum sluice_status text_write(void *user, const void *data, size_t len,
                                     struct sluice_error *e)
{
    struct text *text = user;
    if (text->n + len > text->limit) return err_set(e, SLUICE_E_IO, "no room");
    memcpy(text->data + text->n, data, len);
    text->n += len;
    text->data[text->n] = '\0';
    return SLUICE_OK;
}

static enum sluice_status draw(const struct hit_plot *plot)
{
    svg.n = 0;
    svg.limit = sizeof svg.data - 1;
    return hit_plot_write(plot, text_write, &svg, &err);
}

/* Well-formed XML, as far as tags, attributes and references go: elements nest, values are quoted.
 */
struct xml {
    const char *p;
    const char *open[32]; /* names of the open elements */
    size_t open_len[32];
    int depth, elements;
    bool bad;
};

static void xml_text(struct xml *x, const char *until)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;"};
    for (; *x->p && !strchr(until, *x->p); x->p++) {
        if (*x->p == '<' || ((unsigned char)*x->p < 0x20 && *x->p != '\n')) x->bad = true;
        if (*x->p != '&') continue;
        bool found = false;
        for (int i = 0; i < 4; i++) found |= strncmp(x->p, known[i], strlen(known[i])) == 0;
        x->bad |= !found;
    }
}

static size_t xml_name(struct xml *x)
{
    const char *begin = x->p;
    while (isalnum((unsigned char)*x->p) || *x->p == '-') x->p++;
    x->bad |= x->p == begin;
    return (size_t)(x->p - begin);
}

static void xml_attributes(struct xml *x)
{
    while (*x->p == ' ') {
        x->p++;
        xml_name(x);
        if (x->p[0] != '=' || x->p[1] != '"') {
            x->bad = true;
            return;
        }
        x->p += 2;
        xml_text(x, "\"");
        x->bad |= *x->p != '"';
        if (*x->p) x->p++;
    }
}

static void xml_tag(struct xml *x)
{
    bool closing = *++x->p == '/';
    if (closing) x->p++;
    const char *name = x->p;
    size_t len = xml_name(x);
    if (closing) {
        x->depth--;
        x->bad |= x->depth < 0 || x->open_len[x->depth] != len ||
                  strncmp(x->open[x->depth], name, len) != 0;
    } else {
        xml_attributes(x);
        x->elements++;
        if (x->depth == 0 && x->elements > 1) x->bad = true; /* one root */
        if (*x->p == '/') {
            x->p++;
        } else if (x->depth < 32) {
            x->open[x->depth] = name;
            x->open_len[x->depth++] = len;
        }
    }
    x->bad |= *x->p != '>';
    if (*x->p) x->p++;
}

/* The number of elements, or -1. */
static int xml_elements(const char *text)
{
    struct xml x = {.p = text};
    while (*x.p && !x.bad) {
        xml_text(&x, "<");
        if (*x.p == '<') xml_tag(&x);
    }
    return x.bad || x.depth != 0 ? -1 : x.elements;
}

static int count(const char *what)
{
    int n = 0;
    for (const char *p = svg.data; (p = strstr(p, what)); p++) n++;
    return n;
}

static const uint32_t capacities[] = {640, 2560, 5120, 10240};
static const double low[] = {0.1, 0.25, 0.5, 1}, high[] = {0.3, 0.6, 0.9, 1};
static const struct plot_line lines[] = {{"lru", low, false}, {"optimum", high, true}};

static struct hit_plot plain(void)
{
    return (struct hit_plot){.title = "Hit rates",
                             .x_label = "slots (10240 experts)",
                             .capacities = capacities,
                             .n_points = 4,
                             .lines = lines,
                             .n_lines = 2};
}

static void test_the_checker_checks(void)
{
    CHECK(xml_elements("<a b=\"c\"><d/>x &amp; y</a>\n") == 2);
    static const char *const bad[] = {"<a>",          "<a></b>", "<a b=c/>", "<a>&</a>", "<a/><b/>",
                                      "<a b=\"<\"/>", "<a",      "</a>",     "<a b=\"",  "< a/>"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(xml_elements(bad[i]) == -1, "%s", bad[i]);
}

static void test_lines_are_where_the_numbers_say(void)
{
    const struct hit_plot plot = plain();
    CHECK_OK(draw(&plot));
    CHECK(xml_elements(svg.data) > 20, "%d", xml_elements(svg.data));
    CHECK(strncmp(svg.data, "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 40) == 0);
    CHECK(count("<polyline") == 2 && count("<circle") == 8 && count("<title>Hit rates<") == 1);
    CHECK(count(">lru<") == 1 && count(">optimum<") == 1 && count(">100 %<") == 1);
    CHECK(count("href") == 0 && count("<script") == 0 && count("<style") == 0 &&
          count("url(") == 0);
    /* The last point of both lines is the upper right corner of the axes. */
    CHECK(count(" 7700,800\"") == 2, "%d", count(" 7700,800\""));
    CHECK(count("points=\"1325,4310 2600,3725 4300,2750") == 1);
    CHECK(count(">2000<") == 1 && count(">10000<") == 1);
}

static void test_names_are_escaped(void)
{
    struct hit_plot plot = plain();
    const struct plot_line odd[] = {{"<b>&\"'\x01\x7f", low, false}};
    plot.title = "a < b && c > \"d\"\n\xc3\xa9";
    plot.x_label = "</text><script>";
    plot.lines = odd;
    plot.n_lines = 1;
    CHECK_OK(draw(&plot));
    CHECK(xml_elements(svg.data) > 10);
    CHECK(count("a &lt; b &amp;&amp; c &gt; &quot;d&quot; \xc3\xa9") == 2);
    CHECK(count("<script") == 0);
}

static void test_long_texts_and_many_points(void)
{
    enum { N = 500 };
    static uint32_t many[N];
    static double rates[N];
    static char title[20000];
    struct plot_line all[PLOT_MAX_LINES];
    memset(title, '<', sizeof title - 1);
    for (uint32_t i = 0; i < N; i++) {
        many[i] = UINT32_MAX - N + 1 + i;
        rates[i] = i / (double)N;
    }
    for (int i = 0; i < PLOT_MAX_LINES; i++) all[i] = (struct plot_line){"x", rates, i == 0};
    const struct hit_plot plot = {title, "", many, N, all, PLOT_MAX_LINES};
    /* The title alone is 160 kB, written twice. */
    CHECK(draw(&plot) == SLUICE_E_IO);
    title[1000] = '\0';
    CHECK_OK(draw(&plot));
    CHECK(xml_elements(svg.data) > 30 && count("<circle") == 0);
    CHECK(count("<polyline") == PLOT_MAX_LINES && count("&lt;") == 2000);
}

static void test_one_point(void)
{
    struct hit_plot plot = plain();
    static const uint32_t one[] = {1};
    plot.capacities = one;
    plot.n_points = 1;
    CHECK_OK(draw(&plot));
    CHECK(xml_elements(svg.data) > 10);
}

static void test_bad_plots(void)
{
    static const uint32_t falling[] = {1, 3, 3, 4}, zero[] = {0, 1, 2, 3};
    static const double over[] = {0, 0, 0, 1.01}, nan[] = {NAN, 0, 0, 0};
    const struct plot_line wrong[] = {{"a", over, false}, {"b", nan, false}};
    struct hit_plot plot = plain();
    plot.capacities = falling;
    CHECK(draw(&plot) == SLUICE_E_ARGUMENT && strstr(err.message, "capacity 2 (3)"), "%s",
          err.message);
    plot.capacities = zero;
    CHECK(draw(&plot) == SLUICE_E_ARGUMENT);
    plot = plain();
    plot.lines = wrong;
    CHECK(draw(&plot) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "'b': point 0: rate nan"), "%s", err.message);
    plot.n_lines = 1;
    CHECK(draw(&plot) == SLUICE_E_ARGUMENT && strstr(err.message, "'a': point 3"));
    plot.n_lines = 0;
    CHECK(draw(&plot) == SLUICE_E_ARGUMENT);
    plot.n_lines = PLOT_MAX_LINES + 1;
    CHECK(draw(&plot) == SLUICE_E_ARGUMENT);
    plot = plain();
    plot.n_points = 0;
    CHECK(draw(&plot) == SLUICE_E_ARGUMENT && svg.n == 0);
}

static void test_write_errors_end_it(void)
{
    const struct hit_plot plot = plain();
    CHECK_OK(draw(&plot));
    size_t all = svg.n;
    for (size_t limit = 0; limit < all; limit += all / 5) {
        svg.n = 0;
        svg.limit = limit;
        err = (struct sluice_error){0};
        CHECK(hit_plot_write(&plot, text_write, &svg, &err) == SLUICE_E_IO);
        CHECK(strcmp(err.message, "no room") == 0);
    }
}

#define CASES(C)                                                                                   \
    C(the_checker_checks)                                                                          \
    C(lines_are_where_the_numbers_say)                                                             \
    C(names_are_escaped)                                                                           \
    C(long_texts_and_many_points)                                                                  \
    C(one_point)                                                                                   \
    C(bad_plots)                                                                                   \
    C(write_errors_end_it)
CHECK_MAIN(CASES)

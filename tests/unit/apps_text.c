/* Id files, stop texts, UTF-8 repair, units and the progress line. */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "clean_text.h"
#include "idfile.h"
#include "input.h"
#include "progress.h"
#include "stop_text.h"
#include "units.h"

static struct sluice_error err;

static void test_ids_between_all_separators(void)
{
    struct ids ids = {0};
    const char text[] = " 1,2\n3\t4\r\n,,0000000005 2147483647 ";
    CHECK_OK(ids_parse(&ids, "x", text, sizeof text - 1, &err));
    const int32_t want[] = {1, 2, 3, 4, 5, INT32_MAX};
    REQUIRE(ids.n == 6, "%zu", ids.n);
    CHECK(memcmp(ids.items, want, sizeof want) == 0);
    struct buffer line = {0};
    ids_print(&ids, &line);
    CHECK(strcmp(line.data, "1 2 3 4 5 2147483647") == 0, "%s", line.data);
    buffer_release(&line);
    ids_release(&ids);
    CHECK_OK(ids_parse(&ids, "x", NULL, 0, &err));
    CHECK(ids.n == 0);
    CHECK_OK(ids_parse(&ids, "x", " \n", 2, &err));
    CHECK(ids.n == 0);
}

static void bad_ids(const char *text, size_t len, const char *where, const char *word)
{
    struct ids ids = {0};
    CHECK(ids_parse(&ids, "some.txt", text, len, &err) == SLUICE_E_FORMAT, "%s", word);
    CHECK(strstr(err.message, "some.txt"), "%s", err.message);
    CHECK(strstr(err.message, where), "%s lacks %s", err.message, where);
    CHECK(strstr(err.message, word), "%s lacks %s", err.message, word);
    ids_release(&ids);
}

static void test_malformed_ids_are_located(void)
{
    bad_ids("12 x3", 5, "line 1, column 4", "'x3' is not a decimal id");
    bad_ids("1 2\n33,-4 5", 11, "line 2, column 4", "'-4'");
    bad_ids("1 2.5", 5, "line 1, column 3", "'2.5'");
    bad_ids("1\n\n2147483648", 13, "line 3, column 1", "too large");
    bad_ids("99999999999999999999999999", 26, "column 1", "too large");
    bad_ids("7\0008", 3, "column 1", "'7?8'");
    bad_ids("\x1b[2J", 4, "column 1", "'?[2J'");
    char huge[4000];
    memset(huge, 'z', sizeof huge);
    bad_ids(huge, sizeof huge, "column 1", "not a decimal id");
}

static void test_ids_beyond_the_vocabulary(void)
{
    int32_t items[] = {3, 9, 10};
    struct ids ids = {.items = items, .n = 3};
    CHECK_OK(ids_check(&ids, "f", 11, &err));
    CHECK(ids_check(&ids, "f", 10, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "id 10, number 3"), "%s", err.message);
    CHECK(ids_check(&ids, "-", 9, &err) == SLUICE_E_ARGUMENT);
    CHECK(strstr(err.message, "standard input: id 9"), "%s", err.message);
}

static void test_files_are_read_whole(void)
{
    char name[] = "/tmp/sluice-input-XXXXXX";
    int fd = mkstemp(name);
    REQUIRE(fd >= 0);
    enum { N = 200001 };
    char *big = malloc(N);
    REQUIRE(big);
    for (int i = 0; i < N; i++) big[i] = (char)(i * 7 % 251);
    CHECK(write(fd, big, N) == N);
    close(fd);
    struct buffer got = {0};
    CHECK_OK(input_read(name, &got, &err));
    CHECK(got.len == N && memcmp(got.data, big, N) == 0);
    buffer_release(&got);
    unlink(name);
    free(big);
    CHECK(input_read(name, &got, &err) == SLUICE_E_NOT_FOUND);
    CHECK(strstr(err.message, name), "%s", err.message);
    CHECK(input_read("/", &got, &err) == SLUICE_E_IO, "a folder");
    buffer_release(&got);
}

/* Pushes text in pieces of so many bytes; the result is in out. */
static bool push_in_pieces(const char *const *stops, size_t n, const char *text, size_t piece,
                           struct buffer *out)
{
    struct stop_text stop = {.stops = stops, .n_stops = n};
    size_t len = strlen(text);
    bool stopped = false;
    for (size_t i = 0; i < len && !stopped; i += piece)
        stopped = stop_text_push(&stop, text + i, len - i < piece ? len - i : piece, out);
    if (!stopped) stop_text_finish(&stop, out);
    stop_text_release(&stop);
    return stopped;
}

static void check_stop(const char *const *stops, size_t n, const char *text, const char *want,
                       bool want_stopped)
{
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        struct buffer out = {0};
        bool stopped = push_in_pieces(stops, n, text, piece, &out);
        CHECK(stopped == want_stopped, "'%s' in pieces of %zu", text, piece);
        CHECK(strcmp(out.data ? out.data : "", want) == 0, "'%s' in pieces of %zu gives '%s'", text,
              piece, out.data ? out.data : "");
        buffer_release(&out);
    }
}

static void test_stop_texts(void)
{
    const char *const end[] = {"END"};
    check_stop(end, 1, "so it ENDs", "so it ", true);
    check_stop(end, 1, "so it EN", "so it EN", false);
    check_stop(end, 1, "EEEND", "EE", true);
    check_stop(end, 1, "END", "", true);
    check_stop(NULL, 0, "anything", "anything", false);
    const char *const two[] = {"abcX", "bc"};
    check_stop(two, 2, "zabcY", "za", true);
    check_stop(two, 2, "abX", "abX", false);
    const char *const nested[] = {"cd", "bcd"};
    check_stop(nested, 2, "abcd", "a", true);
    const char *const periodic[] = {"aab"};
    check_stop(periodic, 1, "aaaab", "aa", true);
}

static void test_stop_holds_back_no_more_than_needed(void)
{
    const char *const stops[] = {"\n\nX"};
    struct stop_text stop = {.stops = stops, .n_stops = 1};
    struct buffer out = {0};
    CHECK(!stop_text_push(&stop, "a\n", 2, &out));
    CHECK(strcmp(out.data, "a") == 0);
    CHECK(!stop_text_push(&stop, "\n", 1, &out));
    CHECK(strcmp(out.data, "a") == 0);
    CHECK(!stop_text_push(&stop, "b", 1, &out));
    CHECK(strcmp(out.data, "a\n\nb") == 0);
    stop_text_release(&stop);
    buffer_release(&out);
}

static void check_clean(const char *text, size_t len, const char *want)
{
    struct buffer out = {0};
    clean_text(text, len, &out);
    CHECK(strcmp(out.data ? out.data : "", want) == 0, "'%s'", out.data ? out.data : "");
    buffer_release(&out);
}

#define FFFD "\xef\xbf\xbd"

static void test_utf8_is_made_valid(void)
{
    check_clean("", 0, "");
    const char good[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\xf4\x8f\xbf\xbf";
    check_clean(good, sizeof good - 1, good);
    check_clean("\xff"
                "a",
                2, FFFD "a");
    check_clean("\xc3", 1, FFFD);
    check_clean("\xc0\x80", 2, FFFD FFFD);
    check_clean("\xe0\x9f\xbf", 3, FFFD FFFD FFFD);
    check_clean("\xed\xa0\x80", 3, FFFD FFFD FFFD);
    check_clean("\xf4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD);
    check_clean("\xe2\x82z", 3, FFFD FFFD "z");
}

static void check_bytes(uint64_t bytes, const char *want)
{
    char text[UNITS_CAP];
    units_bytes(bytes, text);
    CHECK(strcmp(text, want) == 0, "%" PRIu64 " gives '%s', not '%s'", bytes, text, want);
}

static void test_units(void)
{
    check_bytes(0, "0 B");
    check_bytes(1023, "1023 B");
    check_bytes(1024, "1.00 KiB");
    check_bytes(1536, "1.50 KiB");
    check_bytes(10240, "10.0 KiB");
    check_bytes(1048575, "1.00 MiB");
    check_bytes(UINT64_C(17) << 30, "17.0 GiB");
    check_bytes(UINT64_MAX, "16384 PiB");
    char text[UNITS_CAP];
    units_count(999, text);
    CHECK(strcmp(text, "999") == 0);
    units_count(32199999, text);
    CHECK(strcmp(text, "32.2 M") == 0, "%s", text);
    units_count(UINT64_C(397000000000), text);
    CHECK(strcmp(text, "397 G") == 0, "%s", text);
}

static void test_progress_line(void)
{
    struct progress p = {.label = "evaluating", .unit = "tokens", .done = 250, .total = 1000};
    char line[400];
    size_t len = progress_line(&p, UINT64_C(5000000000), 80, line, sizeof line);
    CHECK(len == strlen(line) && len < 80, "%zu", len);
    CHECK(strstr(line, "evaluating [#"), "%s", line);
    CHECK(strstr(line, "25% 250/1000 tokens, 50/s, 0:15 left"), "%s", line);
    len = progress_line(&p, UINT64_C(5000000000), 50, line, sizeof line);
    CHECK(!strchr(line, '[') && len < 50, "%s", line);
    for (size_t columns = 0; columns < 60; columns++) {
        len = progress_line(&p, 1, columns, line, sizeof line);
        CHECK(len < columns || (columns == 0 && len == 0));
    }
    p.done = 0;
    progress_line(&p, UINT64_C(5000000000), 80, line, sizeof line);
    CHECK(strstr(line, "-:-- left"), "%s", line);
    p.done = 1;
    p.total = 1000000;
    progress_line(&p, UINT64_C(10000000000), 80, line, sizeof line);
    CHECK(strstr(line, "100:00:00 left"), "%s", line);
    p.done = p.total;
    progress_line(&p, UINT64_C(10000000000), 80, line, sizeof line);
    CHECK(strstr(line, "100%") && strstr(line, "0:00 left"), "%s", line);
}

#define CASES(C)                                                                                   \
    C(ids_between_all_separators)                                                                  \
    C(malformed_ids_are_located)                                                                   \
    C(ids_beyond_the_vocabulary)                                                                   \
    C(files_are_read_whole)                                                                        \
    C(stop_texts)                                                                                  \
    C(stop_holds_back_no_more_than_needed)                                                         \
    C(utf8_is_made_valid)                                                                          \
    C(units)                                                                                       \
    C(progress_line)
CHECK_MAIN(CASES)

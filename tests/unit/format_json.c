/* JSON: what is refused and with which words; every getter's range, types and fallback. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "format/json.h"

static struct sluice_error err;

static json_t *parse(const char *text)
{
    json_t *root = NULL;
    CHECK_OK(json_parse(span_str(text), "config.json", &root, &err));
    return root;
}

static void expect_bytes_refused(struct span text, const char *says)
{
    json_t *root = (json_t *)&err;
    err.message[0] = '\0';
    enum sluice_status status = json_parse(text, "config.json", &root, &err);
    CHECK(status == SLUICE_E_FORMAT && err.code == status, "%d", status);
    CHECK(root == NULL);
    CHECK(strncmp(err.message, "config.json: ", 13) == 0, "%s", err.message);
    CHECK(strstr(err.message, says) != NULL, "'%s' should say '%s'", err.message, says);
}

static void expect_refused(const char *text, const char *says)
{
    expect_bytes_refused(span_str(text), says);
}

static void test_any_value_parses(void)
{
    static const char *const texts[] = {
        "{}", "[1, 2]", "\"NaN\"", "3", "true", " null ", "{\"Infinity\": \"[[[ \\\" NaN {{{\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) json_decref(parse(texts[i]));
}

static void test_constants_of_python(void)
{
    expect_refused("{\n  \"a\": 1,\n  \"b\": NaN\n}", "line 3, column 8: found NaN");
    expect_refused("{\"b\": [1,\n -Infinity]}", "line 2, column 3: found Infinity");
    expect_refused("Infinity", "line 1, column 1: found Infinity");
}

static void test_syntax(void)
{
    expect_refused("", "is empty");
    expect_refused("\xef\xbb\xbf{}", "byte order mark");
    expect_refused("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer");
    expect_refused("{\"a\": 1,\n \"b\": 2,}", "line 2, column 9");
    expect_refused("{\"a\": 1} x", "line 1, column 10");
    expect_refused("{\"a\": [1, 2", "line 1, column 11: ']' expected near end of file");
    expect_refused("{\"a\": \"\xff\"}", "0xff");
    expect_refused("{\"a\": 1e999}", "real number overflow");
    expect_refused("{\"a\": 99999999999999999999}", "too big integer");
    expect_refused("{\"a\": Nothing}", "line 1, column 13");
    expect_refused("{\"a\": \"b", "line 1");
    expect_refused("{\"a\": \"b\\", "line 1");
    expect_refused("{\"a\": \"\\u0000\"}", "\\u0000");
    expect_refused("{\"a\": \033}", "near '?'");
    expect_bytes_refused(span_of("{\"a\": 1\0}", 9), "line 1, column 8: found a NUL byte");
    expect_bytes_refused(span_of("[true\0]", 7), "found a NUL byte");
    expect_bytes_refused(span_of("{}\0", 3), "line 1");
}

static void test_duplicate_keys_are_named(void)
{
    expect_refused("{\"a\": {\"num_experts\": 1, \"num_experts\": 2}}",
                   "'num_experts' appears twice");
    expect_refused(
        "{\"model.layers.0.mlp.gate.weight\": 1,\n\"model.layers.0.mlp.gate.weight\": 1}",
        "line 2, column 32: key 'model.layers.0.mlp.gate.weight' appears twice");
    expect_refused("{\"x\\\"y\": 1, \"x\\\"y\": 2}", "key 'x\\\"y' appears twice");
    expect_refused("{\"\": 1, \"\": 2}", "key '' appears twice");
}

static void nest(char *out, int depth)
{
    memset(out, '[', (size_t)depth);
    memset(out + depth, ']', (size_t)depth);
    out[2 * depth] = '\0';
}

static void test_depth(void)
{
    static char text[400001];
    nest(text, JSON_MAX_DEPTH);
    json_decref(parse(text));
    nest(text, JSON_MAX_DEPTH + 1);
    expect_refused(text, "line 1, column 65: nested deeper than 64");
    nest(text, 200000);
    expect_refused(text, "nested deeper than 64");
    for (int i = 0; i < 100; i++) memcpy(text + 5 * i, "{\"a\":", 5);
    text[500] = '\0';
    expect_refused(text, "nested deeper than 64");
}

static void test_error_may_be_null(void)
{
    json_t *root;
    CHECK(json_parse(span_str("{"), "config.json", &root, NULL) == SLUICE_E_FORMAT);
    CHECK(json_parse(span_str("NaN"), "config.json", &root, NULL) == SLUICE_E_FORMAT);
}

/* The object text_config inside text, as a node. */
static json_t *text_config(const char *text, struct json_node *node)
{
    json_t *root = parse(text);
    struct json_node top = {.object = root, .file = "config.json", .path = ""};
    CHECK_OK(json_get_object_or(&top, "text_config", node, &err));
    return root;
}

#define EXPECT(status, expr, says)                                                                 \
    do {                                                                                           \
        CHECK((expr) == SLUICE_E_##status);                                                        \
        CHECK(err.code == SLUICE_E_##status);                                                      \
        CHECK(strcmp(err.message, says) == 0, "'%s' should be '%s'", err.message, says);           \
    } while (0)

static void test_u32(void)
{
    struct json_node node;
    json_t *root = text_config("{\"text_config\": {\"n\": 8, \"zero\": 0, \"neg\": -1, \"big\": "
                               "4294967296, \"s\": \"many\", \"f\": 8.5, \"whole\": 8.0, \"b\": "
                               "true, \"null\": null, \"list\": [1], \"inf\": 1e300}}",
                               &node);
    uint32_t x = 77;
    CHECK_OK(json_get_u32(&node, "n", 1, 8, &x, &err));
    CHECK(x == 8);
    CHECK_OK(json_get_u32(&node, "whole", 1, 64, &x, &err));
    CHECK(x == 8);
    CHECK_OK(json_get_u32_or(&node, "absent", 1, 2, 99, &x, &err));
    CHECK(x == 99);
    CHECK_OK(json_get_u32_or(&node, "null", 1, 2, 98, &x, &err));
    CHECK(x == 98);
    CHECK_OK(json_get_u32_or(&node, "n", 1, 9, 98, &x, &err));
    CHECK(x == 8);
    x = 77;
#define U32 "an integer from 1 to 4096"
#define U32_FAILS(code, key, says)                                                                 \
    EXPECT(code, json_get_u32(&node, key, 1, 4096, &x, &err), "config.json: text_config." says)
    U32_FAILS(FORMAT, "zero", "zero is 0, but must be " U32);
    U32_FAILS(FORMAT, "neg", "neg is -1, but must be " U32);
    U32_FAILS(FORMAT, "big", "big is 4294967296, but must be " U32);
    U32_FAILS(FORMAT, "s", "s is the string \"many\", but must be " U32);
    U32_FAILS(FORMAT, "f", "f is 8.5, but must be " U32);
    U32_FAILS(FORMAT, "inf", "inf is 1e+300, but must be " U32);
    U32_FAILS(FORMAT, "b", "b is true, but must be " U32);
    U32_FAILS(FORMAT, "list", "list is an array, but must be " U32);
    U32_FAILS(NOT_FOUND, "absent", "absent is missing; it must be " U32);
    U32_FAILS(NOT_FOUND, "null", "null is missing; it must be " U32);
    CHECK(x == 77, "a refused value changes nothing");
    CHECK(json_get_u32_or(&node, "zero", 1, 2, 5, &x, &err) == SLUICE_E_FORMAT);
    CHECK(json_get_u32(&node, "big", 0, UINT32_MAX, &x, &err) == SLUICE_E_FORMAT);
    CHECK(x == 77);
    json_decref(root);
}

static void test_f64(void)
{
    struct json_node node;
    json_t *root = text_config("{\"text_config\": {\"eps\": 1e-06, \"theta\": 10000000, \"p\": "
                               "1.0000001, \"no\": false, \"o\": {}}}",
                               &node);
    double x = 7;
    CHECK_OK(json_get_f64(&node, "eps", 0, 1, &x, &err));
    CHECK(fabs(x - 1e-6) < 1e-20);
    CHECK_OK(json_get_f64(&node, "theta", 1, INFINITY, &x, &err));
    CHECK(fabs(x - 1e7) < 1e-9);
    CHECK_OK(json_get_f64_or(&node, "absent", 1, 2, 0.5, &x, &err));
    CHECK(fabs(x - 0.5) < 1e-9);
    CHECK_OK(json_get_f64_or(&node, "theta", 1, 1e9, 0.5, &x, &err));
    CHECK(fabs(x - 1e7) < 1e-9);
    x = 7;
    EXPECT(FORMAT, json_get_f64(&node, "p", 0, 1, &x, &err),
           "config.json: text_config.p is 1.0000001000000001, but must be a number from 0 to 1");
    EXPECT(FORMAT, json_get_f64(&node, "no", 0.1, INFINITY, &x, &err),
           "config.json: text_config.no is false, but must be a number of at least 0.1");
    EXPECT(FORMAT, json_get_f64(&node, "theta", -DBL_MAX, 5, &x, &err),
           "config.json: text_config.theta is 10000000, but must be a number of at most 5");
    EXPECT(FORMAT, json_get_f64_or(&node, "o", -INFINITY, INFINITY, 1, &x, &err),
           "config.json: text_config.o is an object, but must be a finite number");
    EXPECT(NOT_FOUND, json_get_f64(&node, "absent", 0, 1, &x, &err),
           "config.json: text_config.absent is missing; it must be a number from 0 to 1");
    CHECK(fabs(x - 7) < 1e-9, "a refused value changes nothing");
    json_decref(root);
}

static void test_bool_and_string(void)
{
    json_t *root = parse("{\"yes\": true, \"no\": false, \"n\": 1, \"s\": \"pt\", \"long\": "
                         "\"0123456789012345678901234567890123456789012345678901234567890123\", "
                         "\"esc\": \"a\\u001b\", \"null\": null}");
    struct json_node node = {.object = root, .file = "config.json", .path = ""};
    bool b = false;
    const char *s = NULL;
    CHECK_OK(json_get_bool_or(&node, "yes", false, &b, &err));
    CHECK(b);
    CHECK_OK(json_get_bool_or(&node, "no", true, &b, &err));
    CHECK(!b);
    CHECK_OK(json_get_bool_or(&node, "null", true, &b, &err));
    CHECK(b);
    EXPECT(FORMAT, json_get_bool_or(&node, "n", true, &b, &err),
           "config.json: n is 1, but must be true or false");
    EXPECT(FORMAT, json_get_bool_or(&node, "esc", true, &b, &err),
           "config.json: esc is the string \"a\\u001B\", but must be true or false");
    CHECK(json_get_bool_or(&node, "long", true, &b, &err) == SLUICE_E_FORMAT);
    CHECK(strstr(err.message, "\"012345678901234567890123456789012345678901234567890123456789") ==
                  NULL &&
              strstr(err.message, "012345...\"") == NULL && strstr(err.message, "...\", but"),
          "%s", err.message);
    CHECK_OK(json_get_string(&node, "s", &s, &err));
    CHECK(s && strcmp(s, "pt") == 0);
    CHECK_OK(json_get_string_or(&node, "s", "mlx", &s, &err));
    CHECK(s && strcmp(s, "pt") == 0);
    CHECK_OK(json_get_string_or(&node, "absent", "mlx", &s, &err));
    CHECK(s && strcmp(s, "mlx") == 0);
    EXPECT(NOT_FOUND, json_get_string(&node, "null", &s, &err),
           "config.json: null is missing; it must be a string");
    EXPECT(FORMAT, json_get_string_or(&node, "yes", "mlx", &s, &err),
           "config.json: yes is true, but must be a string");
    json_decref(root);
}

static void test_objects_and_paths(void)
{
    struct json_node node, rope, absent;
    json_t *root =
        text_config("{\"text_config\": {\"rope\": {\"theta\": \"x\"}, \"n\": 1}}", &node);
    CHECK(strcmp(node.path, "text_config") == 0 && strcmp(node.file, "config.json") == 0);
    CHECK(json_has(&node, "rope") && !json_has(&node, "theta"));
    EXPECT(FORMAT, json_get_object_or(&node, "n", &rope, &err),
           "config.json: text_config.n is 1, but must be an object");
    CHECK_OK(json_get_object_or(&node, "rope", &rope, &err));
    CHECK(strcmp(rope.path, "rope") == 0);
    rope.path = "text_config.rope";
    double x;
    EXPECT(FORMAT, json_get_f64(&rope, "theta", 0, 1, &x, &err),
           "config.json: text_config.rope.theta is the string \"x\", but must be a number from 0 "
           "to 1");
    CHECK_OK(json_get_object_or(&node, "vision", &absent, &err));
    CHECK(absent.object == NULL && !json_has(&absent, "n"));
    EXPECT(NOT_FOUND, json_get_f64(&absent, "n", 0, 1, &x, &err),
           "config.json: vision.n is missing; it must be a number from 0 to 1");
    CHECK_OK(json_get_object_or(&node, "rope", &node, &err));
    CHECK(strcmp(node.path, "rope") == 0 && json_has(&node, "theta"));
    struct json_node top = {.object = root, .file = "config.json"};
    EXPECT(NOT_FOUND, json_get_f64(&top, "x", 0, 1, &x, &err),
           "config.json: x is missing; it must be a number from 0 to 1");
    json_decref(root);
}

static void test_expect_object(void)
{
    json_t *list = parse("[{}]");
    CHECK_OK(json_expect_object(json_array_get(list, 0), "a.json", "", &err));
    EXPECT(FORMAT, json_expect_object(list, "a.json", "", &err),
           "a.json: is an array, but must be an object");
    EXPECT(FORMAT, json_expect_object(NULL, "a.json", "weight_map", &err),
           "a.json: weight_map is missing, but must be an object");
    json_decref(list);
    json_t *null = parse("null");
    EXPECT(FORMAT, json_expect_object(null, "a.json", "x", &err),
           "a.json: x is null, but must be an object");
    json_decref(null);
}

#define CASES(C)                                                                                   \
    C(any_value_parses)                                                                            \
    C(constants_of_python)                                                                         \
    C(syntax)                                                                                      \
    C(duplicate_keys_are_named)                                                                    \
    C(depth)                                                                                       \
    C(error_may_be_null)                                                                           \
    C(u32)                                                                                         \
    C(f64)                                                                                         \
    C(bool_and_string)                                                                             \
    C(objects_and_paths)                                                                           \
    C(expect_object)
CHECK_MAIN(CASES)

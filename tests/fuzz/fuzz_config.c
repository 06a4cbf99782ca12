/*
 * config.json: parsing, every getter on every key of the file, two objects deep, and the graph that
 * each family makes of it.
 */
#include <math.h>

#include "format/json.h"
#include "fuzz.h"
#include "model/arch.h"
#include "model/quant.h"

/* A failure has a code and a sentence. */
static void promise_error(enum sluice_status status, const struct sluice_error *err)
{
    if (status == SLUICE_OK) return;
    FUZZ_CHECK(err->code == status && err->message[0] != '\0');
    FUZZ_CHECK(memchr(err->message, '\0', sizeof err->message) != NULL);
}

static void get_numbers(const struct json_node *node, const char *key, uint32_t min, uint32_t max)
{
    struct sluice_error err = {0};
    uint32_t n = 0;
    enum sluice_status status = json_get_u32(node, key, min, max, &n, &err);
    promise_error(status, &err);
    if (status == SLUICE_OK) FUZZ_CHECK(n >= min && n <= max);
    status = json_get_u32_or(node, key, min, max, min, &n, &err);
    promise_error(status, &err);
    double x = 0;
    status = json_get_f64(node, key, min, max, &x, &err);
    promise_error(status, &err);
    if (status == SLUICE_OK) FUZZ_CHECK(x >= min && x <= max);
    status = json_get_f64_or(node, key, -INFINITY, INFINITY, 1, &x, &err);
    promise_error(status, &err);
    if (status == SLUICE_OK) FUZZ_CHECK(isfinite(x));
}

static void get_others(const struct json_node *node, const char *key)
{
    struct sluice_error err = {0};
    bool b;
    const char *s = NULL;
    promise_error(json_get_bool_or(node, key, true, &b, &err), &err);
    enum sluice_status status = json_get_string(node, key, &s, &err);
    promise_error(status, &err);
    if (status == SLUICE_OK) FUZZ_CHECK(s != NULL);
    promise_error(json_get_string_or(node, key, "", &s, &err), &err);
}

static void visit(const struct json_node *node, int levels)
{
    json_t *object = (json_t *)(uintptr_t)node->object;
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        get_numbers(node, key, 1, 4096);
        get_numbers(node, key, 0, UINT32_MAX);
        get_others(node, key);
        struct json_node child = {0};
        struct sluice_error err = {0};
        enum sluice_status status = json_get_object_or(node, key, &child, &err);
        promise_error(status, &err);
        if (status == SLUICE_OK && child.object && levels > 0) visit(&child, levels - 1);
    }
}

/* A large graph says no more than a small one, and takes long. */
static bool is_large(const struct json_node *node)
{
    uint32_t layers;
    struct sluice_error err = {0};
    enum sluice_status status =
        json_get_u32_or(node, "num_hidden_layers", 0, UINT32_MAX, 0, &layers, &err);
    return status == SLUICE_OK && layers > 24;
}

/* A config that a family accepts makes a graph that is complete. */
static void build(const struct arch *arch, const struct json_node *node, bool guess)
{
    struct model m = {0};
    struct sluice_error err = {0};
    struct model_options options = {.keep_hidden = guess, .guess = guess};
    graph_init(&m.graph, 1);
    enum sluice_status status = arch->build(&m, node, &options, &err);
    promise_error(status, &err);
    if (status == SLUICE_OK) {
        FUZZ_CHECK(m.vocab_size && m.hidden_size && m.n_layers && m.tail_node);
        FUZZ_CHECK(m.n_picks && m.n_picks <= m.n_experts);
    }
    model_release(&m);
}

static void build_all(const struct json_node *top)
{
    static const struct arch *const arches[] = {
#define A(name, type) &arch_##name,
#include "model/arch.def"
#undef A
    };
    struct json_node node = {0};
    struct sluice_error err = {0};
    struct quant quant;
    promise_error(quant_read(&quant, top, &err), &err);
    enum sluice_status status = json_get_object_or(top, "text_config", &node, &err);
    if (status != SLUICE_OK || !node.object) node = *top;
    if (is_large(&node)) return;
    for (size_t i = 0; i < sizeof arches / sizeof arches[0]; i++)
        for (int guess = 0; guess < 2; guess++) build(arches[i], &node, guess);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root;
    struct sluice_error err = {0};
    enum sluice_status status = json_parse(span_of(data, size), "config.json", &root, &err);
    promise_error(status, &err);
    FUZZ_CHECK((root != NULL) == (status == SLUICE_OK));
    promise_error(json_expect_object(root, "config.json", "", &err), &err);
    if (json_is_object(root)) {
        struct json_node top = {.object = root, .file = "config.json", .path = ""};
        visit(&top, 2);
        build_all(&top);
    }
    json_decref(root);
    return 0;
}

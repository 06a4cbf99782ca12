/* Checksums and the manifest of a packed store: there and back, and every way to be malformed. */
#include "check.h"
#include "store/pack_manifest.h"
#include "tempdir.h"

static struct sluice_error err;

#define SUM "0123456789abcdef0123456789abcdef"
#define PARTS "000000010000000200000003000000040000000500000006000000070000000800000009"
#define HEAD                                                                                       \
    "{\"format\":\"sluice pack\",\"version\":1,\"fingerprint\":\"" SUM "\",\"shard_bytes\":9,"
#define SOURCES "\"sources\":[{\"name\":\"s\",\"bytes\":5,\"modified_ns\":7}],"
#define RUN(layer, first) "{\"layer\":" layer ",\"first\":" first ",\"sums\":[\"" SUM PARTS "\"]}"
#define SHARD(runs, tensors)                                                                       \
    "\"shards\":[{\"name\":\"m\",\"bytes\":3,\"experts\":[" runs "],\"tensors\":{" tensors "}}]}"

/* The reference vectors of the algorithm: no bytes, and one. */
static void test_checksums(void)
{
    char text[CHECKSUM_DIGITS + 1];
    struct checksum sum;
    checksum_format(checksum_of("", 0), text);
    CHECK(strcmp(text, "99aa06d3014798d86001c324468d497f") == 0, "%s", text);
    checksum_format(checksum_of("a", 1), text);
    CHECK(strcmp(text, "a96faf705af16834e6c632b61e964e1f") == 0, "%s", text);
    CHECK(checksum_parse(span_str(text), &sum) && checksum_equal(sum, checksum_of("a", 1)));
    CHECK(!checksum_parse(span_of(text, 31), &sum));
    text[31] = 'G';
    CHECK(!checksum_parse(span_str(text), &sum));
    text[31] = 'F';
    CHECK(!checksum_parse(span_str(text), &sum), "digits are in lower case");
}

static void test_pieces_add_up(void)
{
    uint8_t data[3000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7 + i / 256);
    struct checksum_state *state = checksum_begin();
    REQUIRE(state != NULL);
    for (size_t step = 1; step < sizeof data; step = 3 * step + 1) {
        checksum_reset(state);
        for (size_t at = 0; at < sizeof data; at += step)
            checksum_add(state, data + at, step < sizeof data - at ? step : sizeof data - at);
        CHECK(checksum_equal(checksum_end(state), checksum_of(data, sizeof data)), "%zu", step);
    }
    checksum_free(state);
}

static void test_there_and_back(void)
{
    struct tempdir dir;
    struct pack_manifest m, back;
    struct pack_expert experts[] = {
        {.layer = 0, .expert = 0, .sum = {1, 2}, .part = {1, 2, 3, 4, 5, 6, 7, 8, 9}},
        {.layer = 0, .expert = 1, .sum = {3, 4}, .part = {0xffffffffu, 0, 0, 0, 0, 0, 0, 0, 1}},
        {.layer = 2, .expert = 7, .sum = {UINT64_MAX, UINT64_MAX}},
    };
    struct pack_tensor tensors[] = {{"odd \"name\" \\", {5, 6}}, {"b", {7, 8}}};
    struct pack_shard shards[] = {
        {.name = "one", .bytes = 1ull << 40, .tensors = tensors, .n_tensors = 2},
        {.name = "two", .bytes = 17, .experts = experts, .n_experts = 3}};
    struct pack_source sources[] = {{"s", 12, 1795460293000613250}};
    m = (struct pack_manifest){.fingerprint = {9, 10},
                               .shard_bytes = 77,
                               .sources = sources,
                               .n_sources = 1,
                               .shards = shards,
                               .n_shards = 2};
    REQUIRE(tempdir_make(&dir));
    CHECK_OK(manifest_write(&m, dir.path, &err));
    CHECK_OK(manifest_read(&back, dir.path, &err));
    CHECK(checksum_equal(back.fingerprint, m.fingerprint) && back.shard_bytes == 77);
    CHECK(back.n_sources == 1 && back.sources[0].modified_ns == sources[0].modified_ns &&
          back.sources[0].bytes == 12 && strcmp(back.sources[0].name, "s") == 0);
    CHECK(back.n_shards == 2 && back.shards[0].bytes == 1ull << 40);
    for (size_t i = 0; i < 3; i++) {
        const struct pack_expert *e = manifest_expert(&back, experts[i].layer, experts[i].expert);
        REQUIRE(e != NULL);
        CHECK(checksum_equal(e->sum, experts[i].sum));
        CHECK(memcmp(e->part, experts[i].part, sizeof e->part) == 0);
    }
    for (size_t i = 0; i < 2; i++) {
        const struct pack_tensor *t = manifest_tensor(&back, tensors[i].name);
        CHECK(t && checksum_equal(t->sum, tensors[i].sum));
    }
    CHECK(!manifest_expert(&back, 1, 0) && !manifest_expert(&back, 2, 8));
    CHECK(!manifest_tensor(&back, "c") && !manifest_shard(&back, "three"));
    CHECK(manifest_shard(&back, "two") == &back.shards[1]);
    manifest_release(&back);
    tempdir_remove(&dir);
}

static void test_nothing_to_find(void)
{
    struct tempdir dir;
    struct pack_manifest m;
    REQUIRE(tempdir_make(&dir));
    CHECK(manifest_read(&m, dir.path, &err) == SLUICE_E_NOT_FOUND);
    CHECK(!manifest_expert(&m, 0, 0) && !manifest_tensor(&m, "a") && !manifest_shard(&m, "a"));
    CHECK(manifest_write(&m, "/no/such/folder", &err) == SLUICE_E_IO);
    CHECK(strstr(err.message, PACK_MANIFEST_NAME), "%s", err.message);
    tempdir_remove(&dir);
}

static void test_malformed(void)
{
    static const struct {
        const char *text, *says;
        enum sluice_status status;
    } cases[] = {
        {"", "empty", SLUICE_E_FORMAT},
        {"{\"format\":", "line 1", SLUICE_E_FORMAT},
        {"[]", "no manifest", SLUICE_E_FORMAT},
        {"{\"format\":\"other\"}", "no manifest", SLUICE_E_FORMAT},
        {"{\"format\":\"sluice pack\"}", "number is missing", SLUICE_E_FORMAT},
        {"{\"format\":\"sluice pack\",\"version\":2}", "version 2", SLUICE_E_UNSUPPORTED},
        {"{\"format\":\"sluice pack\",\"version\":1,\"fingerprint\":\"12\"}", "fingerprint",
         SLUICE_E_FORMAT},
        {"{\"format\":\"sluice pack\",\"version\":1,\"fingerprint\":\"" SUM "\"}", "number",
         SLUICE_E_FORMAT},
        {HEAD "\"sources\":[{\"bytes\":5}]}", "name is missing", SLUICE_E_FORMAT},
        {HEAD "\"sources\":[{\"name\":\"s\",\"bytes\":-5}]}", "number", SLUICE_E_FORMAT},
        {HEAD "\"sources\":[{\"name\":\"s\",\"bytes\":5,\"modified_ns\":true}]}", "number",
         SLUICE_E_FORMAT},
        {HEAD SOURCES "\"shards\":[{\"bytes\":3}]}", "name is missing", SLUICE_E_FORMAT},
        {HEAD SOURCES "\"shards\":[{\"name\":\"m\"}]}", "number", SLUICE_E_FORMAT},
        {HEAD SOURCES SHARD(RUN("-1", "0"), ""), "number", SLUICE_E_FORMAT},
        {HEAD SOURCES SHARD(RUN("0", "4294967296"), ""), "number", SLUICE_E_FORMAT},
        {HEAD SOURCES SHARD("{\"layer\":0,\"first\":0,\"sums\":[\"" SUM "\"]}", ""), "of an expert",
         SLUICE_E_FORMAT},
        {HEAD SOURCES SHARD("{\"layer\":0,\"first\":0,\"sums\":[7]}", ""), "of an expert",
         SLUICE_E_FORMAT},
        {HEAD SOURCES SHARD(RUN("3", "4") "," RUN("3", "4"), ""), "expert is listed twice",
         SLUICE_E_FORMAT},
        {HEAD SOURCES SHARD("", "\"t\":\"" SUM "0\""), "of a tensor", SLUICE_E_FORMAT},
        {HEAD SOURCES SHARD("", "\"t\":null"), "of a tensor", SLUICE_E_FORMAT},
        {HEAD SOURCES "\"shards\":[{\"name\":\"m\",\"bytes\":3,\"tensors\":{\"t\":\"" SUM "\"}},"
                      "{\"name\":\"n\",\"bytes\":3,\"tensors\":{\"t\":\"" SUM "\"}}]}",
         "tensor is listed twice", SLUICE_E_FORMAT},
    };
    struct tempdir dir;
    struct pack_manifest m;
    REQUIRE(tempdir_make(&dir));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(tempdir_write_text(&dir, PACK_MANIFEST_NAME, cases[i].text));
        err.message[0] = '\0';
        CHECK(manifest_read(&m, dir.path, &err) == cases[i].status, "%s", cases[i].text);
        CHECK(strstr(err.message, cases[i].says), "'%s' should say '%s'", err.message,
              cases[i].says);
        CHECK(strstr(err.message, PACK_MANIFEST_NAME), "%s", err.message);
        CHECK(m.n_shards == 0 && m.arena.blocks == NULL);
    }
    CHECK(tempdir_write_text(&dir, PACK_MANIFEST_NAME,
                             HEAD SOURCES SHARD(RUN("3", "4"), "\"t\":\"" SUM "\"")));
    CHECK_OK(manifest_read(&m, dir.path, &err));
    CHECK(manifest_expert(&m, 3, 4) && manifest_tensor(&m, "t"));
    manifest_release(&m);
    tempdir_remove(&dir);
}

#define CASES(C)                                                                                   \
    C(checksums)                                                                                   \
    C(pieces_add_up)                                                                               \
    C(there_and_back)                                                                              \
    C(nothing_to_find)                                                                             \
    C(malformed)
CHECK_MAIN(CASES)

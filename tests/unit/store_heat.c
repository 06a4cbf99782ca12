/* Heat profiles: what was used comes back, the past fades, and other bytes are refused. */
#include <stdlib.h>

#include "base/rng.h"
#include "check.h"
#include "store/heat.h"

enum { LAYERS = 3, EXPERTS = 5 };

static struct sluice_error err;
static const uint8_t print[HEAT_FINGERPRINT_BYTES] = {1, 2, 3, 200};

static struct heat make(void)
{
    struct heat heat;
    CHECK_OK(heat_init(&heat, LAYERS, EXPERTS, print, &err));
    return heat;
}

static void test_round_trip(void)
{
    static const uint32_t uses[EXPERTS] = {0, 1, 50, 99, 100};
    struct heat heat = make(), again = make();
    for (uint32_t l = 0; l < LAYERS; l++) heat_add(&heat, l, uses, 100);
    heat_seen(&heat, 100);
    CHECK(heat.shares[0] == 0 && heat.shares[4] == 65535 && heat.shares[2] == 32768);
    uint8_t bytes[HEAT_HEADER_BYTES + 2 * LAYERS * EXPERTS];
    CHECK(heat_bytes(&heat) == sizeof bytes);
    heat_format(&heat, bytes);
    CHECK_OK(heat_parse(&again, span_of(bytes, sizeof bytes), &err));
    CHECK(again.n_tokens == 100);
    CHECK(memcmp(again.shares, heat.shares, LAYERS * EXPERTS * 2) == 0);
    heat_release(&heat);
    heat_release(&again);
}

/* An expert that is no longer used cools down, however long it was hot. */
static void test_past_fades(void)
{
    static const uint32_t then[EXPERTS] = {100000, 0}, now[EXPERTS] = {0, 4096};
    struct heat heat = make();
    heat_add(&heat, 0, then, 100000);
    heat_seen(&heat, 100000);
    CHECK(heat.shares[0] == 65535 && heat.n_tokens == HEAT_MEMORY);
    heat_add(&heat, 0, now, 4096);
    CHECK(heat.shares[0] == 32768 && heat.shares[1] == 32768);
    heat_add(&heat, 0, now, 0);
    CHECK(heat.shares[0] == 32768);
    heat_release(&heat);
}

static void expect_refused(const uint8_t *bytes, size_t len, enum sluice_status status,
                           const char *says)
{
    struct heat heat = make();
    uint8_t *copy = malloc(len + 1); /* of just that size, for the sanitizers */
    if (!copy) abort();
    memcpy(copy, bytes, len);
    CHECK(heat_parse(&heat, span_of(copy, len), &err) == status);
    CHECK(strstr(err.message, says), "%s", err.message);
    CHECK(heat.n_tokens == 0 && heat.shares[0] == 0);
    free(copy);
    heat_release(&heat);
}

static void test_refused(void)
{
    struct heat heat = make();
    uint8_t good[HEAT_HEADER_BYTES + 2 * LAYERS * EXPERTS + 1] = {0}, bad[sizeof good];
    size_t len = sizeof good - 1;
    heat.shares[0] = 7;
    heat_format(&heat, good);
    for (size_t n = 0; n < len; n++) expect_refused(good, n, SLUICE_E_FORMAT, "heat profile: ");
    expect_refused(good, len + 1, SLUICE_E_FORMAT, "71 bytes, not 70");
    static const struct {
        size_t at;
        uint8_t value;
        enum sluice_status status;
        const char *says;
    } cases[] = {{0, 'X', SLUICE_E_FORMAT, "no heat profile"},
                 {8, 2, SLUICE_E_UNSUPPORTED, "version 2, not 1"},
                 {15, 1, SLUICE_E_MISMATCH, "of another model"},
                 {28, 4, SLUICE_E_MISMATCH, "4 layers of 5 experts, not 3 of 5"},
                 {35, 1, SLUICE_E_MISMATCH, "layers of 16777221 experts"},
                 {39, 255, SLUICE_E_FORMAT, "tokens seen, over 4096"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(bad, good, sizeof bad);
        bad[cases[i].at] = cases[i].value;
        expect_refused(bad, len, cases[i].status, cases[i].says);
    }
    heat_release(&heat);
}

/* Any bytes are a profile or an error. */
static void test_any_bytes(void)
{
    struct rng rng = {3};
    struct heat heat = make();
    uint8_t bytes[HEAT_HEADER_BYTES + 2 * LAYERS * EXPERTS];
    for (uint32_t i = 0; i < 2000; i++) {
        heat_format(&heat, bytes);
        for (uint32_t k = 0; k < 3; k++)
            bytes[rng_below(&rng, sizeof bytes)] = (uint8_t)rng_below(&rng, 256);
        struct heat other = make();
        enum sluice_status status = heat_parse(&other, span_of(bytes, sizeof bytes), &err);
        CHECK(status == SLUICE_OK ? other.n_tokens <= HEAT_MEMORY : err.message[0] != 0);
        heat_release(&other);
    }
    heat_release(&heat);
}

#define CASES(C)                                                                                   \
    C(round_trip)                                                                                  \
    C(past_fades)                                                                                  \
    C(refused)                                                                                     \
    C(any_bytes)

CHECK_MAIN(CASES)

/* Every f16 and bf16 value survives the round trip; rounding is to nearest even. */
#include <math.h>

#include "base/fp16.h"
#include "base/rng.h"
#include "check.h"

static void test_f16_round_trip(void)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = f16_to_f32((uint16_t)h);
        if (isnan(f)) {
            CHECK(isnan(f16_to_f32(f32_to_f16(f))));
            continue;
        }
        CHECK(f32_to_f16(f) == h, "h=%04x f=%g", h, (double)f);
    }
}

static void test_bf16_round_trip(void)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = bf16_to_f32((uint16_t)h);
        if (isnan(f)) {
            CHECK(isnan(bf16_to_f32(f32_to_bf16(f))));
            continue;
        }
        CHECK(f32_to_bf16(f) == h);
    }
}

/* The nearest f16 by search: no candidate is closer, and ties go to the even one. */
static void test_f16_rounds_to_nearest_even(void)
{
    struct rng rng = {7};
    for (int i = 0; i < 200000; i++) {
        float f = f32_from_bits((uint32_t)rng_u64(&rng));
        if (isnan(f) || fabsf(f) >= 65520.0f) continue;
        uint16_t h = f32_to_f16(f);
        float err = fabsf(f16_to_f32(h) - f);
        float up = fabsf(f16_to_f32((uint16_t)(h + 1)) - f);
        if ((h & 0x7fff) < 0x7bff) CHECK(err < up || (err == up && h % 2 == 0), "%a", (double)f);
        if (h & 0x7fff) {
            float down = fabsf(f16_to_f32((uint16_t)(h - 1)) - f);
            CHECK(err < down || (err == down && h % 2 == 0), "%a", (double)f);
        }
    }
    CHECK(f32_to_f16(65519.9f) == 0x7bff);
    CHECK(f32_to_f16(65520.0f) == 0x7c00);
    CHECK(f32_to_f16(-INFINITY) == 0xfc00);
    CHECK(f32_to_bf16(f32_from_bits(0x3f808000)) == 0x3f80);
    CHECK(f32_to_bf16(f32_from_bits(0x3f818000)) == 0x3f82);
}

#define CASES(C) C(f16_round_trip) C(bf16_round_trip) C(f16_rounds_to_nearest_even)
CHECK_MAIN(CASES)

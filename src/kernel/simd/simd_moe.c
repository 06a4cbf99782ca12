/* The router's choice and the sum of what the chosen experts return. */
#include "kernel/simd/sets.h"

/* Below every logit: what has been chosen. NaN comes just above it. */
static const int32_t chosen_order = INT32_MIN;

/* Orders floats as integers: NaN below everything, -0 equal to 0. */
INLINE vi order_of(vf logit)
{
    const vi zero = vi_set(0), magnitude = vi_set(INT32_MAX);
    vi bits = vi_bits(vf_add(logit, vf_set(0)));
    vi size = vi_and(bits, magnitude);
    vi order = vi_if_greater(zero, bits, vi_sub(zero, size), size);
    return vi_if_greater(size, vi_set(0x7f800000), vi_set(INT32_MIN + 1), order);
}

/* Turns scratch into orders. */
INLINE void store_orders(const float *logits, uint32_t n, float *orders)
{
    for (uint32_t i = 0; i < n; i += LANES)
        vf_store_upto(orders + i, n - i, vf_bits(order_of(vf_load_upto(logits + i, n - i))));
}

INLINE vi load_orders(const float *orders, uint32_t n)
{
    return n >= LANES ? vi_load(orders) : vi_load_tail(orders, n, vi_set(chosen_order));
}

/* The first index of the largest, which is then marked as chosen. */
INLINE uint32_t take_largest(float *orders, uint32_t n)
{
    vi max = vi_set(chosen_order);
    for (uint32_t i = 0; i < n; i += LANES) max = vi_max(max, load_orders(orders + i, n - i));
    vi target = vi_set(vi_max_lane(max));
    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t equal = vi_equal(load_orders(orders + i, n - i), target);
        if (!equal) continue;
        uint32_t index = i + (uint32_t)__builtin_ctz(equal);
        memcpy(orders + index, &chosen_order, sizeof chosen_order);
        return index;
    }
    return 0;
}

static void insert_ascending(int32_t *ids, uint32_t count, int32_t id)
{
    uint32_t at = count;
    for (; at > 0 && ids[at - 1] > id; at--) ids[at] = ids[at - 1];
    ids[at] = id;
}

INLINE vf load_logits(const float *logits, uint32_t n)
{
    const vi nothing = vi_bits(vf_set(-__builtin_inff()));
    return n >= LANES ? vf_load(logits) : vf_bits(vi_load_tail(logits, n, nothing));
}

/* The largest logit, NaN aside. */
INLINE float largest(const float *logits, uint32_t n)
{
    vf max = vf_set(-__builtin_inff());
    for (uint32_t i = 0; i < n; i += LANES) max = vf_max(load_logits(logits + i, n - i), max);
    return vf_max_lane(max);
}

INLINE float sum_of_exponentials(const float *logits, uint32_t n, vf max)
{
    vf sum = vf_set(0);
    for (uint32_t i = 0; i < n; i += LANES)
        sum = vf_add(sum, vf_exp(vf_sub(load_logits(logits + i, n - i), max)));
    return vf_sum(sum);
}

static void softmax_top_k(const float *logits, uint32_t n, uint32_t k, bool normalize, int32_t *ids,
                          float *weights, float *scratch)
{
    store_orders(logits, n, scratch);
    for (uint32_t j = 0; j < k; j++) insert_ascending(ids, j, (int32_t)take_largest(scratch, n));
    vf max = vf_set(largest(logits, n));
    vf sum = vf_set(sum_of_exponentials(logits, n, max));
    float chosen = 0;
    for (uint32_t j = 0; j < k; j++) weights[j] = logits[ids[j]];
    for (uint32_t j = 0; j < k; j += LANES) {
        vf e = vf_exp(vf_sub(vf_load_upto(weights + j, k - j), max));
        vf_store_upto(weights + j, k - j, vf_div(e, sum));
    }
    for (uint32_t j = 0; j < k; j++) chosen += weights[j];
    if (!normalize) return;
    for (uint32_t j = 0; j < k; j++) weights[j] /= chosen;
}

/* Rounds each product and each sum, as the reference does. */
static void weighted_sum(const float *const *rows, const float *w, uint32_t k, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i += LANES) {
        vf sum = vf_set(0);
        for (uint32_t j = 0; j < k; j++)
            sum = vf_add(sum, vf_mul(vf_set(w[j]), vf_load_upto(rows[j] + i, n - i)));
        vf_store_upto(y + i, n - i, sum);
    }
}

static void combine(const float *residual, const float *moe, const float *shared, float shared_gate,
                    uint32_t n, float *y)
{
    vf gate = vf_sigmoid(vf_set(shared_gate));
    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t left = n - i;
        vf v = vf_add(vf_load_upto(residual + i, left), vf_load_upto(moe + i, left));
        vf s = vf_mul(gate, vf_load_upto(shared + i, left));
        vf_store_upto(y + i, left, vf_add(v, s));
    }
}

void SET(init_moe)(struct kernels *k)
{
    k->softmax_top_k = softmax_top_k;
    k->weighted_sum = weighted_sum;
    k->combine = combine;
}

/* Replacement policies: sequences by hand, and naive models that give the same victims. */
#include <math.h>

#include "base/bits.h"
#include "base/rng.h"
#include "check.h"
#include "fail_alloc.h"
#include "store/policy_auto.h"

enum { LAYERS = 6, EXPERTS = 9, KEYS = LAYERS * EXPERTS };

static struct sluice_error err;
static uint32_t layer_of[KEYS];

static struct policy_shape shape(void)
{
    for (uint32_t i = 0; i < KEYS; i++) layer_of[i] = i / EXPERTS;
    return (struct policy_shape){
        .n_keys = KEYS, .n_layers = LAYERS, .layer_of = layer_of, .entry_bytes = 1};
}

static struct policy *open_policy(enum policy_kind kind, uint32_t capacity)
{
    struct policy *p;
    const struct policy_shape s = shape();
    CHECK_OK(policy_open(&p, kind, &s, capacity, &err));
    return p;
}

static void use_key(struct policy *p, uint32_t key, enum policy_use use)
{
    if (policy_has(p, key))
        policy_hit(p, key, use);
    else
        policy_insert(p, key, use);
}

/* Removes victims until none is left: their order must be that of `keys`. */
static void check_order(struct policy *p, const uint32_t *keys, uint32_t n)
{
    CHECK(p->n == n, "%u", p->n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = policy_victim(p, NULL, NULL);
        CHECK(key == keys[i], "victim %u is %u, not %u", i, key, keys[i]);
        if (key == NO_KEY) return;
        policy_remove(p, key);
        CHECK(!policy_has(p, key));
    }
    CHECK(policy_victim(p, NULL, NULL) == NO_KEY);
}

#define CHECK_ORDER(p, ...)                                                                        \
    check_order(p, (const uint32_t[]){__VA_ARGS__}, COUNT_OF(((const uint32_t[]){__VA_ARGS__})))

static void test_names(void)
{
    enum policy_kind kind;
    for (unsigned i = 0; i < POLICY_COUNT; i++) {
        CHECK(policy_from_name(policy_name((enum policy_kind)i), &kind) && kind == i);
        CHECK(policy_text(kind)[0] != '\0');
    }
    CHECK(!policy_from_name("fifo", &kind) && !policy_from_name("", &kind));
}

static void test_bad_shapes(void)
{
    struct policy *p;
    struct policy_shape s = shape();
    s.n_layers = 0;
    CHECK(policy_open(&p, POLICY_LRU, &s, 4, &err) == SLUICE_E_ARGUMENT && !p);
    s.n_layers = LAYERS - 1;
    CHECK(policy_open(&p, POLICY_AUTO, &s, 4, &err) == SLUICE_E_ARGUMENT && !p);
    CHECK(strstr(err.message, "expert 45 is in layer 5 of 5"), "%s", err.message);
    s.n_keys = (uint32_t)POLICY_MAX_KEYS + 1;
    CHECK(policy_open(&p, POLICY_LFU, &s, 4, &err) == SLUICE_E_ARGUMENT && !p);
}

static bool opens(enum policy_kind kind)
{
    struct policy *p;
    const struct policy_shape s = shape();
    enum sluice_status status = policy_open(&p, kind, &s, 4, &err);
    if (status == SLUICE_OK) status = policy_put_off(p, &err);
    if (status != SLUICE_OK) policy_close(&p);
    CHECK(status == SLUICE_OK || (status == SLUICE_E_NOMEM && !p));
    policy_close(&p);
    return status == SLUICE_OK;
}

static void test_out_of_memory(void)
{
    for (unsigned i = 0; i < POLICY_COUNT; i++) {
        int failed;
        FAIL_SWEEP(opens((enum policy_kind)i), &failed);
        CHECK(failed >= 2 && failed < 1000, "%s: %d", policy_name((enum policy_kind)i), failed);
    }
}

static void test_bytes_count_all(void)
{
    struct policy *lru = open_policy(POLICY_LRU, 4), *all = open_policy(POLICY_AUTO, 4);
    CHECK(policy_bytes(lru) >= KEYS * 9);
    CHECK(policy_bytes(all) > 2 * policy_bytes(lru) + 4 * KEYS * 16);
    policy_close(&lru);
    policy_close(&all);
}

static void test_lru_by_hand(void)
{
    struct policy *p = open_policy(POLICY_LRU, 8);
    for (uint32_t key = 1; key <= 5; key++) use_key(p, key, USE_DECODE);
    use_key(p, 2, USE_DECODE);
    use_key(p, 1, USE_DECODE);
    use_key(p, 3, USE_PREFILL); /* is no use */
    use_key(p, 7, USE_PREFILL);
    use_key(p, 8, USE_GUESS);
    policy_remove(p, 4);
    CHECK_ORDER(p, 8, 7, 3, 5, 2, 1);
    policy_close(&p);
}

static void test_lfu_by_hand(void)
{
    struct policy *p = open_policy(POLICY_LFU, 8);
    static const uint32_t uses[] = {1, 2, 3, 1, 2, 1, 4, 5, 5};
    for (unsigned i = 0; i < COUNT_OF(uses); i++) use_key(p, uses[i], USE_DECODE);
    use_key(p, 3, USE_PREFILL);
    use_key(p, 40, USE_PREFILL);
    use_key(p, 41, USE_GUESS);
    CHECK_ORDER(p, 41, 40, 3, 4, 2, 5, 1);
    use_key(p, 3, USE_DECODE); /* counts outlive absence: now two uses, the latest of all */
    use_key(p, 4, USE_PREFILL);
    use_key(p, 2, USE_PREFILL);
    CHECK_ORDER(p, 4, 2, 3);
    policy_close(&p);
}

static void test_lfu_forgets(void)
{
    struct policy *p = open_policy(POLICY_LFU, 8);
    for (int i = 0; i < 8; i++) use_key(p, 1, USE_DECODE);
    for (uint32_t i = 0; i < 4 * KEYS; i++) use_key(p, 2 + i % 40, USE_DECODE);
    for (uint32_t key = 5; key < 42; key++) policy_remove(p, key);
    CHECK(policy_victim(p, NULL, NULL) != 1); /* eight uses, where the others have five or six */
    for (uint32_t i = 0; i < 4 * 4 * KEYS; i++) use_key(p, 2 + i % 3, USE_DECODE);
    CHECK(policy_victim(p, NULL, NULL) == 1);
    policy_close(&p);
}

static void pass(struct policy *p, const uint32_t *keys, uint32_t n)
{
    for (uint32_t l = 0; l < LAYERS; l++) {
        policy_step(p, l, NULL, 0, USE_DECODE);
        for (uint32_t i = 0; i < n; i++)
            if (layer_of[keys[i]] == l) use_key(p, keys[i], USE_DECODE);
    }
}

static void test_lfuda_by_hand(void)
{
    struct policy *p = open_policy(POLICY_LFUDA, 20);
    enum { A = 0, B = EXPERTS, C = 2 * EXPERTS, D = 3 * EXPERTS };
    pass(p, (const uint32_t[]){A, B, C, D, A + 1}, 5);
    pass(p, (const uint32_t[]){A + 2, B + 2}, 2);
    policy_step(p, 0, NULL, 0, USE_DECODE);
    policy_step(p, 1, NULL, 0, USE_DECODE);
    use_key(p, D + 5, USE_PREFILL);
    /*
     * At layer 1: A and B were passed twice since their use, C and D once. Never used first; then
     * by age, and among equals the layer just passed before the one that comes next.
     */
    CHECK_ORDER(p, D + 5, B, A + 1, A, B + 2, A + 2, D, C);
    policy_close(&p);
}

static void test_lfuda_stays_earned_by_use(void)
{
    struct policy *p = open_policy(POLICY_LFUDA, 20);
    for (int i = 0; i < 4; i++) pass(p, (const uint32_t[]){3}, 1);
    /* Three earlier uses earn six passes, in which experts seen once leave first. */
    for (uint32_t i = 1; i <= 5; i++) {
        uint32_t once = 3 + i;
        pass(p, &once, 1);
        CHECK(policy_victim(p, NULL, NULL) == once, "pass %u: %u", i, policy_victim(p, NULL, NULL));
        policy_remove(p, once);
    }
    pass(p, NULL, 0);
    uint32_t once = 0;
    pass(p, &once, 1);
    CHECK(policy_victim(p, NULL, NULL) == 3);
    policy_close(&p);
}

/* Naive models: all there is to know of a key, and the victim by looking at every key. */
struct model {
    bool present[KEYS];
    int64_t order[KEYS]; /* lru: larger is more recent */
    int64_t top, bottom;
    uint32_t count[KEYS]; /* lfu and lfuda, in units of a use's fraction */
    int64_t epoch[KEYS], used[KEYS], now;
    int64_t until[KEYS]; /* lfuda: pass; INT64_MIN: never used */
    int64_t passes[LAYERS];
    uint32_t layer, n;
};

static void model_count(struct model *m, uint32_t key, int64_t epoch, uint32_t one)
{
    for (; m->epoch[key] < epoch; m->epoch[key]++) m->count[key] /= 2;
    m->count[key] += one;
}

static void model_use(struct model *m, enum policy_kind kind, uint32_t key, enum policy_use use)
{
    bool was = m->present[key];
    m->present[key] = true;
    m->n += !was;
    if (use != USE_DECODE) {
        if (!was) m->order[key] = --m->bottom;
        return;
    }
    m->order[key] = ++m->top;
    if (kind == POLICY_LFU) {
        model_count(m, key, m->now++ / (4 * KEYS), 256);
        m->used[key] = m->now;
    } else if (kind == POLICY_LFUDA) {
        int64_t at = m->passes[layer_of[key]];
        model_count(m, key, at / 32, 16);
        m->until[key] = at + 2 * (int64_t)(m->count[key] - 16) / 16;
    }
}

static double lfu_value(const struct model *m, uint32_t key)
{
    return ldexp(m->count[key], (int)(m->epoch[key] - m->now / (4 * KEYS)));
}

static bool model_before(const struct model *m, enum policy_kind kind, uint32_t a, uint32_t b)
{
    if (kind == POLICY_LRU) return m->order[a] < m->order[b];
    if (kind == POLICY_LFU) {
        double va = lfu_value(m, a), vb = lfu_value(m, b);
        if (va < vb || va > vb) return va < vb;
        return m->used[a] != m->used[b] ? m->used[a] < m->used[b] : a > b;
    }
    bool never_a = m->until[a] == INT64_MIN, never_b = m->until[b] == INT64_MIN;
    if (never_a != never_b) return never_a;
    int64_t over_a = never_a ? 0 : m->passes[layer_of[a]] - m->until[a];
    int64_t over_b = never_b ? 0 : m->passes[layer_of[b]] - m->until[b];
    if (over_a != over_b) return over_a > over_b;
    uint32_t wait_a = (layer_of[a] + LAYERS - m->layer - 1) % LAYERS;
    uint32_t wait_b = (layer_of[b] + LAYERS - m->layer - 1) % LAYERS;
    if (wait_a != wait_b) return wait_a > wait_b;
    return m->until[a] != m->until[b] ? m->until[a] < m->until[b] : a > b;
}

static uint32_t model_victim(const struct model *m, enum policy_kind kind, const bool *pinned)
{
    uint32_t best = NO_KEY;
    for (uint32_t key = 0; key < KEYS; key++)
        if (m->present[key] && !pinned[key] && (best == NO_KEY || model_before(m, kind, key, best)))
            best = key;
    return best;
}

static bool not_pinned(const void *user, uint32_t key)
{
    return !((const bool *)user)[key];
}

/* One step of a few keys, some others pinned; every victim is compared. */
static void random_step(struct policy *p, struct model *m, enum policy_kind kind, struct rng *rng)
{
    bool pinned[KEYS] = {0};
    uint32_t keys[EXPERTS], n = 0;
    enum policy_use use = rng_below(rng, 4) ? USE_DECODE : (enum policy_use)rng_below(rng, 3);
    uint32_t layer = rng_below(rng, 8) ? (m->layer + 1) % LAYERS : rng_below(rng, LAYERS);
    for (uint32_t e = 0; e < EXPERTS; e++)
        if (rng_below(rng, EXPERTS) < 1 + 5 * rng_unit(rng) * (e < 4))
            keys[n++] = layer * EXPERTS + e;
    for (uint32_t i = rng_below(rng, 12); i; i--) pinned[rng_below(rng, KEYS)] = true;
    policy_step(p, layer, keys, n, use);
    m->layer = layer;
    m->passes[layer] += use == USE_DECODE;
    for (uint32_t i = 0; i < n; i++) {
        pinned[keys[i]] = true;
        while (!m->present[keys[i]] && m->n >= p->capacity) {
            uint32_t want = model_victim(m, kind, pinned);
            uint32_t got = policy_victim(p, not_pinned, pinned);
            CHECK(want == got, "%s: %u, not %u", policy_name(kind), got, want);
            if (want == NO_KEY || check_failures) break;
            policy_remove(p, want);
            m->present[want] = false;
            m->n--;
        }
        use_key(p, keys[i], use);
        model_use(m, kind, keys[i], use);
        CHECK(policy_has(p, keys[i]) && p->n == m->n);
    }
}

static void compare_with_model(enum policy_kind kind, uint64_t seed, int steps)
{
    struct rng rng = {seed};
    struct model m = {0};
    struct policy *p = open_policy(kind, 20);
    for (uint32_t i = 0; i < KEYS; i++) m.until[i] = INT64_MIN;
    for (int i = 0; i < steps && !check_failures; i++) {
        if (rng_below(&rng, 50) == 0) policy_set_capacity(p, 1 + rng_below(&rng, KEYS));
        uint32_t key = rng_below(&rng, KEYS);
        if (rng_below(&rng, 20) == 0 && m.present[key]) {
            policy_remove(p, key);
            m.present[key] = false;
            m.n--;
        }
        random_step(p, &m, kind, &rng);
    }
    policy_close(&p);
}

static void test_models_agree(void)
{
    for (unsigned kind = 0; kind < POLICY_SINGLES; kind++)
        for (uint64_t seed = 1; seed <= 4; seed++)
            compare_with_model((enum policy_kind)kind, seed, 150000);
}

/* Runs `auto` beside single policies that see the same entries: its victims are the leader's. */
static void test_auto_asks_its_leader(void)
{
    struct rng rng = {7};
    struct policy *all = open_policy(POLICY_AUTO, 16), *one[POLICY_SINGLES];
    unsigned led[POLICY_SINGLES] = {0};
    for (unsigned i = 0; i < POLICY_SINGLES; i++) one[i] = open_policy((enum policy_kind)i, 16);
    for (uint32_t step = 0; step < 60000; step++) {
        bool pinned[KEYS] = {0};
        uint32_t layer = step % LAYERS;
        /* Phases of reuse and of popularity, which different policies are good at. */
        uint32_t e = step / 6000 % 2 ? step / LAYERS / 3 * 5 % EXPERTS
                                     : rng_below(&rng, 1 + rng_below(&rng, EXPERTS));
        uint32_t key = layer * EXPERTS + e;
        for (int i = 0; i < 3; i++) pinned[rng_below(&rng, KEYS)] = true;
        policy_step(all, layer, &key, 1, USE_DECODE);
        for (unsigned i = 0; i < POLICY_SINGLES; i++)
            policy_step(one[i], layer, &key, 1, USE_DECODE);
        if (!policy_has(all, key) && all->n >= all->capacity) {
            enum policy_kind leader = policy_leader(all);
            REQUIRE(leader < POLICY_SINGLES);
            led[leader]++;
            uint32_t victim = policy_victim(all, not_pinned, pinned);
            REQUIRE(victim == policy_victim(one[leader], not_pinned, pinned));
            policy_remove(all, victim);
            for (unsigned i = 0; i < POLICY_SINGLES; i++) policy_remove(one[i], victim);
        }
        use_key(all, key, USE_DECODE);
        for (unsigned i = 0; i < POLICY_SINGLES; i++) use_key(one[i], key, USE_DECODE);
    }
    unsigned leaders = 0;
    for (unsigned i = 0; i < POLICY_SINGLES; i++) leaders += led[i] > 0;
    CHECK(leaders >= 2 && policy_switches(all) >= 1);
    for (unsigned i = 0; i < POLICY_SINGLES; i++) policy_close(&one[i]);
    policy_close(&all);
}

/* A policy that is told at once, and one that puts off what it is told while it has all keys. */
struct both {
    struct policy *now, *later;
};

static struct both open_both(enum policy_kind kind)
{
    struct both b = {open_policy(kind, KEYS), open_policy(kind, KEYS)};
    CHECK_OK(policy_put_off(b.later, &err));
    return b;
}

static void close_both(struct both *b)
{
    policy_close(&b->now);
    policy_close(&b->later);
}

static void remove_victim(struct both *b, const bool *pinned)
{
    uint32_t victim = policy_victim(b->now, not_pinned, pinned);
    uint32_t same = policy_victim(b->later, not_pinned, pinned);
    REQUIRE(victim == same && victim != NO_KEY);
    policy_remove(b->now, victim);
    policy_remove(b->later, victim);
}

/* As the store does: hits of a step first, then what it misses. */
static void step_both(struct both *b, const uint32_t *keys, uint32_t n, enum policy_use use)
{
    bool pinned[KEYS] = {0}, had[KEYS];
    for (uint32_t i = 0; i < n; i++) {
        had[i] = policy_has(b->now, keys[i]);
        pinned[keys[i]] = true;
    }
    struct policy *p[] = {b->now, b->later};
    for (unsigned j = 0; j < 2; j++) {
        policy_step(p[j], layer_of[keys[0]], keys, n, use);
        for (uint32_t i = 0; i < n; i++)
            if (had[i]) policy_hit(p[j], keys[i], use);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (had[i]) continue;
        if (b->now->n >= b->now->capacity) remove_victim(b, pinned);
        for (unsigned j = 0; j < 2; j++) policy_insert(p[j], keys[i], use);
    }
}

/* Some experts of a layer, ascending; now and then a guess brings one in. */
static void random_steps(struct both *b, struct rng *rng, int n)
{
    for (int i = 0; i < n && !check_failures; i++) {
        uint32_t keys[EXPERTS], n_keys = 0, layer = rng_below(rng, LAYERS);
        uint32_t guess = rng_below(rng, KEYS);
        for (uint32_t e = 0; e < EXPERTS; e++)
            if (rng_below(rng, 3) == 0) keys[n_keys++] = layer * EXPERTS + e;
        if (n_keys) step_both(b, keys, n_keys, rng_below(rng, 6) ? USE_DECODE : USE_PREFILL);
        if (rng_below(rng, 8) || policy_has(b->now, guess) || b->now->n >= b->now->capacity)
            continue;
        policy_insert(b->now, guess, USE_GUESS);
        policy_insert(b->later, guess, USE_GUESS);
    }
}

static void resize_both(struct both *b, uint32_t capacity)
{
    const bool none[KEYS] = {0};
    while (b->now->n > capacity && !check_failures) remove_victim(b, none);
    policy_set_capacity(b->now, capacity);
    policy_set_capacity(b->later, capacity);
}

/* Put off, told when the room shrinks, told at once, and put off again. */
static void test_put_off_changes_no_victim(void)
{
    for (unsigned kind = 0; kind < POLICY_COUNT; kind++) {
        struct rng rng = {kind + 1};
        struct both b = open_both((enum policy_kind)kind);
        for (int round = 0; round < 60; round++) {
            random_steps(&b, &rng, 1 + (int)rng_below(&rng, 90));
            CHECK(b.now->n == b.later->n, "%u", b.later->n);
            if (b.now->n) remove_victim(&b, (const bool[KEYS]){0}); /* as a read that failed */
            random_steps(&b, &rng, (int)rng_below(&rng, 20));
            resize_both(&b, EXPERTS + rng_below(&rng, KEYS - EXPERTS + 1));
            random_steps(&b, &rng, (int)rng_below(&rng, 50));
            resize_both(&b, KEYS);
        }
        close_both(&b);
    }
}

/* In the middle of a step, too: what it does then is told at once. */
static void test_put_off_is_told_within_a_step(void)
{
    struct policy *p = open_policy(POLICY_LRU, KEYS);
    CHECK_OK(policy_put_off(p, &err));
    policy_insert(p, 1, USE_GUESS);
    policy_step(p, 0, (const uint32_t[]){1, 2, 3}, 3, USE_DECODE);
    policy_hit(p, 1, USE_DECODE);
    policy_insert(p, 3, USE_DECODE);
    policy_remove(p, 1); /* its guess failed */
    policy_insert(p, 2, USE_DECODE);
    policy_insert(p, 5, USE_GUESS);
    policy_insert(p, 1, USE_DECODE);
    CHECK_ORDER(p, 5, 3, 2, 1);
    policy_close(&p);
}

/* Of what was long ago only that it is there. */
static void test_put_off_forgets(void)
{
    struct both b = open_both(POLICY_LRU);
    static const uint32_t old[] = {7, 8};
    step_both(&b, old, 2, USE_DECODE);
    for (uint32_t i = 0; i < 40 * KEYS; i++) {
        uint32_t key = 10 + (i * 7 + i / 100) % 40;
        step_both(&b, &key, 1, USE_DECODE);
    }
    CHECK(b.later->n == 42, "%u", b.later->n);
    policy_remove(b.now, 7);
    policy_remove(b.now, 8);
    CHECK(policy_victim(b.later, NULL, NULL) == 8);
    policy_remove(b.later, 8);
    CHECK(policy_victim(b.later, NULL, NULL) == 7);
    policy_remove(b.later, 7);
    resize_both(&b, 0); /* all others in the order of their use */
    close_both(&b);
}

#define CASES(C)                                                                                   \
    C(names)                                                                                       \
    C(bad_shapes)                                                                                  \
    C(out_of_memory)                                                                               \
    C(bytes_count_all)                                                                             \
    C(lru_by_hand)                                                                                 \
    C(lfu_by_hand)                                                                                 \
    C(lfu_forgets)                                                                                 \
    C(lfuda_by_hand)                                                                               \
    C(lfuda_stays_earned_by_use)                                                                   \
    C(models_agree)                                                                                \
    C(auto_asks_its_leader)                                                                        \
    C(put_off_changes_no_victim)                                                                   \
    C(put_off_is_told_within_a_step)                                                               \
    C(put_off_forgets)
CHECK_MAIN(CASES)

/*
 * One budget while an engine runs: sessions take memory that expert slots give back, a budget can
 * change, and no bit of a result does.
 */
#include <unistd.h>

#include "base/bits.h"
#include "engine_run.h"

static const char storyteller[] = "models/storyteller";

enum { TOKENS = 24, CTX = 256 };

static struct sluice_error err;

static struct sluice_engine_info info_of(const sluice_engine *engine)
{
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    return info;
}

static struct sluice_engine_options small_options(uint64_t ram)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    o.plan_ctx = CTX;
    o.ram_bytes = ram;
    return o;
}

/* A budget with room for about two thirds of the experts. */
static uint64_t some_budget(void)
{
    struct sluice_engine_options o = small_options(0);
    o.plan_only = true;
    sluice_engine *engine = run_engine(storyteller, &o);
    struct sluice_engine_info info = info_of(engine);
    CHECK(info.n_slots == 256 && info.plan_bytes <= info.budget_bytes);
    sluice_engine_close(&engine);
    return info.plan_bytes - info.slot_bytes / 3;
}

static struct prompt reference(void)
{
    struct sluice_engine_options o = small_options(0);
    sluice_engine *engine = run_engine(storyteller, &o);
    struct prompt p = prompt_make(run_vocab(engine), TOKENS, 4);
    sluice_session *session = run_session_of(engine, CTX);
    CHECK_OK(prompt_eval(&p, engine, session, 0, TOKENS, p.logits, &err));
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return p;
}

/* All tokens, one by one, from wherever the session is. */
static void expect_tokens(const struct prompt *p, sluice_engine *engine, sluice_session *session,
                          size_t from, size_t to)
{
    float *row = must(calloc(p->vocab, sizeof *row));
    for (size_t t = from; t < to && !check_failures; t++) {
        CHECK(prompt_eval(p, engine, session, t, 1, row, &err) == SLUICE_OK, "%s", err.message);
        CHECK(memcmp(row, p->logits + t * p->vocab, p->vocab * sizeof *row) == 0, "token %zu", t);
    }
    free(row);
}

static void expect_plan(const sluice_engine *engine, uint64_t budget)
{
    struct sluice_engine_info info = info_of(engine);
    CHECK(info.budget_bytes == budget && info.plan_bytes <= budget && info.n_slots >= 1);
}

static struct sluice_engine_info plan_of(struct sluice_engine_options o)
{
    o.plan_only = true;
    sluice_engine *engine = run_engine(storyteller, &o);
    struct sluice_engine_info info = info_of(engine);
    sluice_engine_close(&engine);
    return info;
}

/* Nobody asks for a batch: it grows with memory and context, and the least budget stays. */
static void test_batch_by_memory(void)
{
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct sluice_engine_options o = small_options(0);
    CHECK(plan_of(o).max_batch_tokens == 64);
    o.max_batch_tokens = 0;
    CHECK(plan_of(o).max_batch_tokens == 512);
    o.plan_ctx = 600;
    CHECK(plan_of(o).max_batch_tokens == 1024);
    o.plan_ctx = 2048;
    struct sluice_engine_info most = plan_of(o);
    CHECK(most.max_batch_tokens == 2048 && most.plan_bytes <= most.budget_bytes);
    o.ram_bytes = most.smallest_plan_bytes + (1 << 20);
    struct sluice_engine_info least = plan_of(o);
    CHECK(least.max_batch_tokens == 512 && least.plan_bytes <= o.ram_bytes);
    CHECK(least.scratch_bytes < most.scratch_bytes / 2);
    o.ram_bytes = most.plan_bytes + (128 << 20);
    struct sluice_engine_info again = plan_of(o);
    CHECK(again.max_batch_tokens == 2048 && again.n_slots == most.n_slots);
}

static void test_sessions_take_slots(void)
{
    enum { MORE = 3 };
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = reference();
    uint64_t ram = some_budget();
    struct sluice_engine_options o = small_options(ram);
    sluice_engine *engine = run_engine(storyteller, &o);
    sluice_session *first = run_session_of(engine, CTX), *more[MORE] = {0};
    uint32_t begun = info_of(engine).n_slots, slots = begun;
    CHECK(begun > 80 && begun < 256);
    expect_tokens(&p, engine, first, 0, 4);
    CHECK(info_of(engine).n_slots == begun, "the planned session takes nothing");
    for (uint32_t i = 0; i < MORE; i++) {
        more[i] = run_session_of(engine, CTX);
        struct sluice_engine_info info = info_of(engine);
        CHECK(info.n_slots < slots, "%u", info.n_slots);
        CHECK(info.session_bytes >= (i + 2) * (uint64_t)CTX * info.kv_bytes_per_token);
        slots = info.n_slots;
        expect_plan(engine, ram);
        expect_tokens(&p, engine, more[i], 0, 4);
        expect_tokens(&p, engine, first, 4 + i, 5 + i);
    }
    for (uint32_t i = 0; i < MORE; i++) {
        sluice_session_close(&more[i]);
        expect_tokens(&p, engine, first, 4 + MORE + i, 5 + MORE + i);
        CHECK(info_of(engine).n_slots > slots);
        slots = info_of(engine).n_slots;
        expect_plan(engine, ram);
    }
    CHECK(slots == begun, "%u of %u", slots, begun);
    sluice_session_close(&first);
    sluice_engine_close(&engine);
    prompt_release(&p);
}

/* Sessions open until one does not fit; what was refused has taken nothing. */
static void test_sessions_that_do_not_fit(void)
{
    /* Small ones, so that several fit whatever the program itself takes at the moment. */
    enum { MOST = 200, SMALL = 256 };
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = reference();
    uint64_t ram = some_budget();
    struct sluice_engine_options o = small_options(ram);
    struct sluice_session_options small;
    sluice_session_options_default(&small);
    small.n_ctx = SMALL;
    sluice_engine *engine = run_engine(storyteller, &o);
    sluice_session *sessions[MOST] = {0};
    enum sluice_status status = SLUICE_OK;
    uint32_t n = 0;
    for (; n < MOST && status == SLUICE_OK; n++)
        status = sluice_session_open(&sessions[n], engine, &small, &err);
    REQUIRE(status == SLUICE_E_BUDGET && !sessions[n - 1] && n > 2, "%u: %s", n, err.message);
    CHECK(strstr(err.message, "a session of ") && strstr(err.message, "a smaller context"), "%s",
          err.message);
    expect_plan(engine, ram);
    expect_tokens(&p, engine, sessions[0], 0, TOKENS);
    uint32_t slots = info_of(engine).n_slots;
    sluice_session_close(&sessions[1]);
    sessions[1] = run_session_of(engine, SMALL);
    CHECK(info_of(engine).n_slots == slots);
    for (uint32_t i = 0; i < n; i++) sluice_session_close(&sessions[i]);
    sluice_engine_close(&engine);
    prompt_release(&p);
}

static void test_budget_changes(void)
{
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = reference();
    uint64_t ram = some_budget();
    struct sluice_engine_options o = small_options(ram);
    sluice_engine *engine = run_engine(storyteller, &o);
    sluice_session *session = run_session_of(engine, CTX);
    struct sluice_engine_info info = info_of(engine);
    uint64_t least = info.smallest_plan_bytes;
    expect_tokens(&p, engine, session, 0, 6);
    CHECK_OK(sluice_engine_set_ram(engine, least, &err));
    expect_plan(engine, least);
    CHECK(info_of(engine).n_slots < info.n_slots / 2);
    expect_tokens(&p, engine, session, 6, 12);
    CHECK(sluice_engine_set_ram(engine, least / 2, &err) == SLUICE_E_BUDGET);
    CHECK(strstr(err.message, "the smallest budget that works is"), "%s", err.message);
    expect_plan(engine, least);
    CHECK(sluice_engine_set_ram(engine, 0, &err) == SLUICE_E_ARGUMENT);
    CHECK_OK(sluice_engine_set_ram(engine, 4 * ram, &err));
    expect_tokens(&p, engine, session, 12, 18);
    CHECK(info_of(engine).n_slots == 256);
    CHECK_OK(sluice_engine_set_ram(engine, ram, &err));
    CHECK(info_of(engine).n_slots == info.n_slots);
    expect_tokens(&p, engine, session, 18, TOKENS);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    prompt_release(&p);
}

struct meddler {
    sluice_engine *engine;
    enum sluice_status ram, session;
    uint32_t n_slots;
};

static void meddle(void *user, size_t done, size_t total)
{
    struct meddler *m = user;
    sluice_session *session;
    (void)done;
    (void)total;
    m->ram = sluice_engine_set_ram(m->engine, info_of(m->engine).smallest_plan_bytes, NULL);
    m->session = sluice_session_open(&session, m->engine, NULL, NULL);
    m->n_slots = info_of(m->engine).n_slots;
    sluice_session_close(&session);
}

/* In the middle of a step slots stay as they are. */
static void test_callbacks(void)
{
    if (is_instrumented()) SKIP(INSTRUMENTED);
    struct prompt p = reference();
    uint64_t ram = some_budget();
    struct sluice_engine_options o = small_options(ram);
    sluice_engine *engine = run_engine(storyteller, &o);
    sluice_session *session = run_session_of(engine, CTX);
    struct meddler m = {.engine = engine};
    struct sluice_eval_options e;
    sluice_eval_options_default(&e);
    e.progress = meddle;
    e.user = &m;
    float *logits = must(calloc(p.vocab, sizeof *logits));
    struct sluice_segment one = {.session = session, .ids = p.ids, .n_ids = 1, .n_logits = 1};
    uint32_t slots = info_of(engine).n_slots;
    CHECK_OK(sluice_eval(engine, &one, 1, &e, logits, &err));
    CHECK(m.ram == SLUICE_E_STATE && m.session == SLUICE_E_STATE && m.n_slots == slots);
    expect_plan(engine, ram);
    expect_tokens(&p, engine, session, 1, TOKENS);
    CHECK(info_of(engine).n_slots == slots);
    free(logits);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    prompt_release(&p);
}

struct profile {
    uint8_t bytes[4096];
    size_t len;
};

static enum sluice_status take_profile(void *user, const void *data, size_t len,
                                       struct sluice_error *write_err)
{
    struct profile *p = user;
    (void)write_err;
    CHECK(p->len + len <= sizeof p->bytes);
    memcpy(p->bytes + p->len, data, len);
    p->len += len;
    return SLUICE_OK;
}

static enum sluice_status refuse_profile(void *user, const void *data, size_t len,
                                         struct sluice_error *write_err)
{
    (void)user;
    (void)data;
    (void)len;
    if (write_err) strcpy(write_err->message, "the disk is full");
    return SLUICE_E_IO;
}

static struct sluice_stats stats_of(const sluice_engine *engine)
{
    struct sluice_stats stats = {.size = sizeof stats};
    sluice_engine_get_stats(engine, &stats);
    return stats;
}

/* The same tokens again, with slots that a profile filled, read far less; bits are the same. */
static void test_heat(void)
{
    struct prompt p = reference();
    struct sluice_engine_options o = small_options(0);
    o.n_slots = 170;
    o.policy = SLUICE_POLICY_LFU;
    struct profile profile = {.len = 0};
    uint64_t cold = 0;
    for (unsigned round = 0; round < 3; round++) {
        if (round) {
            o.heat = profile.bytes;
            o.heat_len = profile.len;
        }
        sluice_engine *engine = run_engine(storyteller, &o);
        uint64_t filled = stats_of(engine).bytes_read;
        CHECK((round > 0) == (filled > 0));
        sluice_session *session = run_session_of(engine, CTX);
        expect_tokens(&p, engine, session, 0, TOKENS);
        struct sluice_stats stats = stats_of(engine);
        if (round == 0) cold = stats.expert_misses;
        CHECK(round == 0 || stats.expert_misses < cold / 2, "%u of %u",
              (unsigned)stats.expert_misses, (unsigned)cold);
        CHECK(sluice_engine_write_heat(engine, refuse_profile, NULL, &err) == SLUICE_E_IO);
        CHECK(strcmp(err.message, "the disk is full") == 0);
        profile.len = 0;
        CHECK_OK(sluice_engine_write_heat(engine, take_profile, &profile, &err));
        CHECK(profile.len == 40 + 2 * 256);
        sluice_session_close(&session);
        sluice_engine_close(&engine);
    }
    prompt_release(&p);
}

static void test_heat_of_another_model(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    sluice_engine *engine = run_engine(packed_model, &o);
    struct profile profile = {.len = 0};
    CHECK_OK(sluice_engine_write_heat(engine, take_profile, &profile, &err));
    sluice_engine_close(&engine);
    o.heat = profile.bytes;
    o.heat_len = profile.len;
    CHECK(sluice_engine_open(&engine, storyteller, &o, &err) == SLUICE_E_MISMATCH && !engine);
    CHECK(strncmp(err.message, "heat profile: it is of a", 24) == 0, "%s", err.message);
    o.io = SLUICE_IO_MMAP;
    CHECK(sluice_engine_open(&engine, packed_model, &o, &err) == SLUICE_E_ARGUMENT && !engine);
    o.heat = NULL;
    engine = run_engine(packed_model, &o);
    CHECK(sluice_engine_write_heat(engine, take_profile, &profile, &err) == SLUICE_E_ARGUMENT);
    sluice_engine_close(&engine);
}

static void test_plan_only(void)
{
    struct prompt p = reference();
    struct sluice_engine_options o = small_options(0);
    o.plan_only = true;
    o.preload = true;
    for (unsigned mapped = 0; mapped < 2; mapped++) {
        o.io = mapped ? SLUICE_IO_MMAP : SLUICE_IO_AUTO;
        o.preload = !mapped;
        sluice_engine *engine = run_engine(storyteller, &o);
        struct sluice_stats stats = {.size = sizeof stats};
        sluice_engine_get_stats(engine, &stats);
        CHECK(stats.bytes_read == 0);
        CHECK(mapped || (info_of(engine).n_slots == 256 && info_of(engine).resident_bytes > 0));
        sluice_session *session = run_session_of(engine, CTX);
        float *row = must(calloc(p.vocab, sizeof *row));
        CHECK(prompt_eval(&p, engine, session, 0, 1, row, &err) == SLUICE_E_STATE);
        CHECK(strstr(err.message, "plan_only"), "%s", err.message);
        free(row);
        sluice_session_close(&session);
        sluice_engine_close(&engine);
    }
    prompt_release(&p);
}

/* Ends an opening as soon as it reads something of at most so many parts; 0: never. */
struct patience {
    unsigned asked;
    uint64_t total, most;
};

static void hear(void *user, uint64_t done, uint64_t total)
{
    struct patience *p = user;
    CHECK(done <= total);
    p->total = total;
}

static bool is_over(void *user)
{
    struct patience *p = user;
    p->asked++;
    return p->total <= p->most;
}

static void test_cancelled(void)
{
    enum { LAYERS = 8 };
    static const struct {
        uint64_t most;
        const char *text;
    } rows[] = {{UINT64_MAX, "MiB of dense weights"}, {LAYERS, "the experts of 1 of 8 layers"}};
    struct patience p = {0};
    struct sluice_engine_options o = small_options(0);
    o.preload = true;
    o.load_progress = hear;
    o.load_cancelled = is_over;
    o.load_user = &p;
    sluice_engine *engine = run_engine(storyteller, &o);
    CHECK(p.asked > LAYERS && p.total == LAYERS);
    sluice_engine_close(&engine);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        p = (struct patience){.most = rows[i].most};
        CHECK(sluice_engine_open(&engine, storyteller, &o, &err) == SLUICE_E_CANCELLED && !engine);
        CHECK(strstr(err.message, rows[i].text), "%s", err.message);
    }
}

#define CASES(C)                                                                                   \
    C(batch_by_memory)                                                                             \
    C(sessions_take_slots)                                                                         \
    C(sessions_that_do_not_fit)                                                                    \
    C(budget_changes)                                                                              \
    C(callbacks)                                                                                   \
    C(heat)                                                                                        \
    C(heat_of_another_model)                                                                       \
    C(plan_only)                                                                                   \
    C(cancelled)

CHECK_MAIN(CASES)

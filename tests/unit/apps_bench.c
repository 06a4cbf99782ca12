/* What bench is made of: the golden gate, forced routing, medians, and the limits of the machine.
 */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench_decoder.h"
#include "bench_dram.h"
#include "bench_drive.h"
#include "bench_gate.h"
#include "bench_limits.h"
#include "bench_peak.h"
#include "bench_profile.h"
#include "bench_resident.h"
#include "bench_stats.h"
#include "check.h"

#define MODEL "models/storyteller"

enum { N_TOKENS = 12 };

static void test_medians(void)
{
    double odd[] = {5, 1, 3}, even[] = {4, 1, 3, 2}, one[] = {7};
    struct spread s = spread_of(odd, 3);
    CHECK(s.median == 3 && s.low == 1 && s.high == 5);
    CHECK(spread_of(even, 4).median == 2.5);
    CHECK(spread_of(one, 1).median == 7);
    CHECK(spread_of(one, 0).median == 0);
}

/* Decodes the first tokens of the storyteller with so many slots. */
static enum sluice_status decode(uint32_t n_slots, const struct forced_route *route,
                                 struct golden *golden, struct window *window,
                                 struct sluice_error *err)
{
    static const struct args args;
    struct app app = {.args = &args};
    struct sluice_engine_options options;
    sluice_engine_options_default(&options);
    options.n_threads = 1;
    options.n_slots = n_slots;
    struct decode_plan plan = {
        .path = MODEL, .name = "the run", .route = route, .golden = golden, .n_tokens = N_TOKENS};
    struct decoder d = {0};
    enum sluice_status status = decoder_open(&d, &app, &plan, &options, err);
    if (status == SLUICE_OK) status = decoder_run(&d, N_TOKENS, window, err);
    decoder_close(&d);
    return status;
}

static void test_equal_runs_pass_the_gate(void)
{
    struct golden golden = {0};
    struct sluice_error err;
    struct window window = {0};
    REQUIRE(decode(256, NULL, &golden, &window, &err) == SLUICE_OK, "%s", err.message);
    CHECK(golden.n == N_TOKENS && golden.n_agreed == 0);
    CHECK(window.n == N_TOKENS && window.ms > 0 && window.median_ms > 0);
    CHECK(window.hits + window.misses == 32, "%g + %g", window.hits, window.misses);
    REQUIRE(decode(9, NULL, &golden, &window, &err) == SLUICE_OK, "%s", err.message);
    CHECK(golden.n == N_TOKENS && golden.n_agreed == N_TOKENS);
    golden_release(&golden);
}

static void test_differences_do_not_pass_the_gate(void)
{
    struct golden golden = {0};
    struct sluice_error err;
    REQUIRE(decode(256, NULL, &golden, NULL, &err) == SLUICE_OK, "%s", err.message);
    golden.sums[7] ^= 1;
    CHECK(decode(64, NULL, &golden, NULL, &err) == SLUICE_E_MISMATCH);
    CHECK(strstr(err.message, "token 7 of the run has other logits"), "%s", err.message);
    golden.sums[7] ^= 1;
    golden.ids[3] ^= 1;
    CHECK(decode(64, NULL, &golden, NULL, &err) == SLUICE_E_MISMATCH);
    CHECK(strstr(err.message, "token 3 of the run is"), "%s", err.message);
    CHECK(golden.n_agreed == 7, "%zu", golden.n_agreed);
    golden_release(&golden);
}

static enum sluice_status judge_tokens(struct gate *gate, struct app *app, sluice_engine *engine,
                                       sluice_session *session, struct sluice_error *err)
{
    float *logits = malloc(gate->vocab_size * sizeof *logits);
    enum sluice_status status = logits ? SLUICE_OK : SLUICE_E_NOMEM;
    for (size_t i = 0; i < GATE_STEPS && status == SLUICE_OK; i++) {
        struct sluice_segment one = {
            .session = session, .ids = &gate->ids[i], .n_ids = 1, .n_logits = 1};
        status = app_eval(app, engine, &one, NULL, logits, err);
        if (status == SLUICE_OK) status = gate_judge(gate, logits, err);
    }
    free(logits);
    return status;
}

/* Judges the fast storyteller with so many experts a token by the exact one. */
static enum sluice_status judge(uint32_t top_k_experts, struct gate *gate, struct sluice_error *err)
{
    static const struct args args = {.threads = 1};
    struct app app = {.args = &args};
    struct sluice_engine_options options;
    struct sluice_session_options session_options;
    sluice_engine *engine = NULL;
    sluice_session *session = NULL;
    app_engine_options(&app, &options);
    options.precision = SLUICE_FAST;
    options.top_k_experts = top_k_experts;
    sluice_session_options_default(&session_options);
    enum sluice_status status = gate_open(gate, &app, MODEL, err);
    if (status == SLUICE_OK) status = sluice_engine_open(&engine, MODEL, &options, err);
    if (status == SLUICE_OK) status = sluice_session_open(&session, engine, &session_options, err);
    if (status == SLUICE_OK) status = judge_tokens(gate, &app, engine, session, err);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    gate_close(gate);
    return status;
}

static void test_the_gate_compares_with_exact(void)
{
    struct gate gate;
    struct sluice_error err;
    CHECK(judge(0, &gate, &err) == SLUICE_OK, "%s", err.message);
    CHECK(gate.n_judged == GATE_STEPS && gate.n_agreed >= GATE_STEPS - 1, "%zu", gate.n_agreed);
    CHECK(gate.kl > 0 && gate.kl < 5e-3, "%g", gate.kl);
    /* Nearly the right network, as with a kernel that drops something small. */
    CHECK(judge(3, &gate, &err) == SLUICE_E_MISMATCH, "%g", gate.kl);
    CHECK(strstr(err.message, "exact precision"), "%s", err.message);
}

/* Rows of exact's that are sure of the first id by so many standard deviations. */
static void sure_gate(struct gate *gate, float logits[GATE_STEPS * 64], float margin)
{
    for (size_t i = 0; i < (size_t)GATE_STEPS * 64; i++)
        logits[i] = i % 64 < 2 ? 3 - (float)(i % 64) * margin : (i % 2 ? 1.0f : -1.0f);
    *gate = (struct gate){.logits = logits, .vocab_size = 64};
}

static void test_the_gate_knows_near_from_wrong(void)
{
    static float logits[GATE_STEPS * 64];
    struct gate gate;
    struct sluice_error err;
    float row[64];
    for (int sure = 0; sure < 2; sure++) {
        sure_gate(&gate, logits, sure ? 0.2f : 0.02f);
        memcpy(row, logits, sizeof row);
        CHECK(gate_judge(&gate, row, &err) == SLUICE_OK && gate.n_agreed == 1 && gate.kl < 1e-9);
        row[1] = row[0] + 0.01f;
        CHECK(gate_judge(&gate, row, &err) == (sure ? SLUICE_E_MISMATCH : SLUICE_OK));
        CHECK(gate.n_agreed == 1 && gate.n_judged == 2);
    }
    CHECK(strstr(err.message, "token 1 is 1, but 0 in exact"), "%s", err.message);
    row[0] = NAN;
    CHECK(gate_judge(&gate, row, &err) == SLUICE_E_MISMATCH);
    CHECK(strstr(err.message, "not finite"), "%s", err.message);
    /* The likeliest is right, all else is not. */
    enum sluice_status status = SLUICE_OK;
    sure_gate(&gate, logits, 0.2f);
    for (size_t i = 0; i < GATE_STEPS && status == SLUICE_OK; i++) {
        for (size_t j = 0; j < 64; j++) row[j] = j ? -logits[i * 64 + j] : 3;
        status = gate_judge(&gate, row, &err);
    }
    CHECK(status == SLUICE_E_MISMATCH && gate.n_agreed == GATE_STEPS);
    CHECK(strstr(err.message, "nats"), "%s", err.message);
    sure_gate(&gate, logits, 0.2f);
    status = SLUICE_OK;
    for (size_t i = 0; i < GATE_STEPS && status == SLUICE_OK; i++) {
        for (size_t j = 0; j < 64; j++) row[j] = j == 9 ? NAN : logits[i * 64 + j];
        status = gate_judge(&gate, row, &err);
    }
    CHECK(status == SLUICE_E_MISMATCH, "a NaN that is not the likeliest");
}

static struct sluice_engine_info shape(uint32_t n_layers, uint32_t n_experts, uint32_t k)
{
    return (struct sluice_engine_info){.size = sizeof(struct sluice_engine_info),
                                       .n_layers = n_layers,
                                       .n_expert_layers = n_layers,
                                       .n_experts = n_experts,
                                       .n_experts_used = k};
}

static const int32_t *picks_of(const struct forced_route *route, uint32_t token, uint32_t layer)
{
    return route->picks + ((size_t)token * route->n_layers + layer) * route->k;
}

static bool has(const int32_t *picks, uint32_t k, int32_t expert)
{
    for (uint32_t i = 0; i < k; i++)
        if (picks[i] == expert) return true;
    return false;
}

/* The share of picks that the layer's last token had made as well. */
static double reused(const struct forced_route *route)
{
    uint32_t n = 0;
    for (uint32_t t = 1; t < route->n_tokens; t++)
        for (uint32_t l = 0; l < route->n_layers; l++)
            for (uint32_t i = 0; i < route->k; i++)
                n += has(picks_of(route, t - 1, l), route->k, picks_of(route, t, l)[i]);
    return (double)n / ((route->n_tokens - 1.0) * route->n_layers * route->k);
}

static void test_made_up_routes(void)
{
    struct sluice_engine_info info = shape(3, 64, 4);
    struct sluice_error err;
    struct forced_route route;
    REQUIRE(forced_route_open(&route, "uniform", &info, 400, 1, &err) == SLUICE_OK, "%s",
            err.message);
    CHECK(fabs(reused(&route) - 4.0 / 64) < 0.02, "%g", reused(&route));
    for (uint32_t i = 1; i < 4; i++)
        CHECK(picks_of(&route, 9, 1)[i] > picks_of(&route, 9, 1)[i - 1]);
    forced_route_close(&route);
    REQUIRE(forced_route_open(&route, "reuse:0.75", &info, 400, 1, &err) == SLUICE_OK, "%s",
            err.message);
    CHECK(fabs(reused(&route) - 0.75) < 0.03, "%g", reused(&route));
    forced_route_close(&route);
    REQUIRE(forced_route_open(&route, "zipf:1.5", &info, 400, 1, &err) == SLUICE_OK, "%s",
            err.message);
    CHECK(reused(&route) > 0.3, "%g", reused(&route));
    forced_route_close(&route);
    REQUIRE(forced_route_open(&route, NULL, &info, 400, 1, &err) == SLUICE_OK, "%s", err.message);
    CHECK(!route.picks);
    forced_route_close(&route);
}

static void test_bad_routes(void)
{
    struct sluice_engine_info info = shape(3, 64, 4);
    static const char *const bad[] = {"unifrom", "zipf",      "zipf:",     "zipf:x",
                                      "zipf:-1", "reuse:1.5", "reuse:nan", MODEL "/config.json"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct forced_route route;
        struct sluice_error err = {0};
        CHECK(forced_route_open(&route, bad[i], &info, 10, 1, &err) != SLUICE_OK, "%s", bad[i]);
        CHECK(!route.picks && err.message[0]);
    }
}

/* Layers without experts are not counted. */
static void test_routes_of_models_with_dense_layers(void)
{
    struct sluice_engine_info info = shape(3, 64, 4);
    info.n_expert_layers = 2;
    struct forced_route route;
    struct sluice_error err;
    REQUIRE(forced_route_open(&route, "uniform", &info, 10, 1, &err) == SLUICE_OK, "%s",
            err.message);
    CHECK(route.n_layers == 2);
    forced_route_close(&route);
}

static void test_forced_experts_are_used(void)
{
    struct sluice_engine_info info = shape(8, 32, 4);
    struct sluice_error err;
    struct forced_route route;
    REQUIRE(forced_route_open(&route, "reuse:1", &info, N_TOKENS, 1, &err) == SLUICE_OK, "%s",
            err.message);
    struct window window;
    struct golden golden = {0};
    REQUIRE(decode(256, &route, &golden, &window, &err) == SLUICE_OK, "%s", err.message);
    CHECK(window.misses * N_TOKENS == 32, "every token uses what the first did: %g", window.misses);
    golden_release(&golden);
    forced_route_close(&route);
}

/* Reading gigabytes through instrumented loads takes many minutes and shows nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SKIP_INSTRUMENTED() SKIP("measures, and instrumented loads take minutes")
#else
#define SKIP_INSTRUMENTED() (void)0
#endif

static void test_dram(void)
{
    SKIP_INSTRUMENTED();
    struct sluice_error err;
    struct dram_probe probe;
    REQUIRE(dram_open(&probe, 1, UINT64_MAX, &err) == SLUICE_OK, "%s", err.message);
    struct dram_probe part = probe; /* that it works, not how fast the machine is */
    part.bytes /= 16;
    for (part.n_threads = 1; part.n_threads <= 3; part.n_threads++) {
        double rate = 0;
        CHECK(dram_measure(&part, &rate, &err) == SLUICE_OK, "%s", err.message);
        CHECK(rate > 1e6 && rate < 1e14, "%g", rate);
        CHECK(dram_measure_copy(&part, &rate, &err) == SLUICE_OK, "%s", err.message);
        CHECK(rate > 1e6 && rate < 1e14, "%g", rate);
    }
    CHECK(!probe.cached);
    dram_close(&probe);
}

/* What a cache could hold is measured as such. */
static void test_small_memory(void)
{
    SKIP_INSTRUMENTED();
    struct sluice_error err;
    struct dram_probe probe;
    double rate = 0;
    REQUIRE(dram_open(&probe, 3, 1 << 20, &err) == SLUICE_OK, "%s", err.message);
    CHECK(probe.bytes == 1 << 20 && probe.cached, "%zu", probe.bytes);
    CHECK(dram_measure(&probe, &rate, &err) == SLUICE_OK, "%s", err.message);
    CHECK(rate > 1e6 && rate < 1e14, "%g", rate);
    dram_close(&probe);
    REQUIRE(dram_open(&probe, 3, 1, &err) == SLUICE_OK, "%s", err.message);
    CHECK(dram_measure(&probe, &rate, &err) == SLUICE_OK, "%s", err.message);
    CHECK(rate > 1e6 && rate < 1e14, "%g", rate);
    dram_close(&probe);
}

static void test_peak(void)
{
    struct sluice_error err;
    for (uint32_t n = 1; n <= 3; n++) {
        double rate = 0;
        const char *how = NULL;
        CHECK(peak_measure(n, &rate, &how, &err) == SLUICE_OK, "%s", err.message);
        CHECK(rate > 1e6 && rate < 1e16 && how && *how, "%g", rate);
    }
}

static struct sluice_step step_of(const char *op, const char *weight, uint64_t ns)
{
    return (struct sluice_step){
        .op = op, .weight = weight, .ns = ns, .bytes = 100 * ns, .products = 1};
}

static void test_profile_adds_up(void)
{
    struct profile *p = calloc(1, sizeof *p);
    const struct machine_limits limits = {.bytes = 200e9, .products = 1e18};
    struct sluice_step steps[] = {step_of("matmul", "o_proj", 10), step_of("conv", "", 15),
                                  step_of("matmul", "o_proj", 20), step_of("matmul", "v_proj", 1)};
    REQUIRE(p);
    for (size_t i = 0; i < 4; i++) profile_add(p, &steps[i]);
    profile_sort(p);
    CHECK(p->n == 3 && strcmp(p->rows[0].name, "matmul o_proj") == 0 && p->rows[0].steps == 2);
    CHECK(strcmp(p->rows[1].name, "conv") == 0 && strcmp(p->rows[2].name, "matmul v_proj") == 0);
    struct profile_row sum = profile_sum(p);
    CHECK(sum.steps == 4 && sum.ns == 46 && sum.bytes == 4600 && sum.products == 4);
    CHECK(fabs(profile_of_limit(&sum, &limits) - 0.5) < 1e-9);
    steps[0].waited_ns = 5;
    profile_add(p, &steps[0]);
    profile_add(p, &steps[0]);
    CHECK(p->n == 4 && strcmp(p->rows[3].name, "waiting") == 0 && p->rows[3].ns == 10);
    for (uint64_t i = 0; i < 3 * PROFILE_ROWS; i++) {
        static const char names[3 * PROFILE_ROWS][2]; /* told apart by their addresses */
        struct sluice_step more = step_of(names[i], "", 1);
        profile_add(p, &more);
    }
    sum = profile_sum(p);
    CHECK(p->n == PROFILE_ROWS && sum.ns == 46 + 30 + 3 * PROFILE_ROWS);
    CHECK(strcmp(p->rows[PROFILE_ROWS - 1].name, "others") == 0);
    free(p);
}

/* A machine that turns out to do more and more. */
struct slow_start {
    double rate, step;
    int n_probes;
};

static enum sluice_status probe_again(void *user, double *rate, struct sluice_error *err)
{
    (void)err;
    struct slow_start *s = user;
    s->n_probes++;
    *rate = s->rate += s->step;
    return SLUICE_OK;
}

static void test_exceeded_limits_are_measured_again(void)
{
    struct sluice_error err;
    struct slow_start rising = {100, 10, 0}, flat = {100, 0, 0};
    double limit = 100;
    CHECK(limit_settle(103, &limit, probe_again, &rising, &err) == SLUICE_OK);
    CHECK(limit == 100 && rising.n_probes == 0, "%d", rising.n_probes);
    CHECK(limit_settle(120, &limit, probe_again, &rising, &err) == SLUICE_OK);
    CHECK(limit == 120 && rising.n_probes == 2, "%g", limit);
    limit = 100;
    CHECK(limit_settle(120, &limit, probe_again, &flat, &err) == SLUICE_OK);
    CHECK(limit == 100 && flat.n_probes == LIMIT_PROBES, "%d", flat.n_probes);
    CHECK(limit_suspect(1.04) && !limit_suspect(1.02));
}

/* Of a run in which decoding read 100 bytes a token at 2 tokens a second. */
static json_t *decode_beside(double dram_rate, bool profiled)
{
    double rates[] = {2}, dram[] = {dram_rate}, peak[] = {100};
    static struct profile profile;
    profile = (struct profile){.n = 1, .rows = {{.name = "x", .ns = 1000000000, .bytes = 200}}};
    struct phase phase = {.name = "decode",
                          .decode = true,
                          .n = 1,
                          .bytes = 100,
                          .rates = rates,
                          .profile = profiled ? &profile : NULL,
                          .profile_ns = 1000000000};
    struct resident b = {.path = {.data = (char[]){"m"}, .len = 1},
                         .rounds = 1,
                         .phases = &phase,
                         .n_phases = 1,
                         .peak_how = "x",
                         .dram_rates = dram,
                         .peak_rates = peak};
    json_t *all = resident_json(&b), *decode = json_incref(json_object_get(all, "decode"));
    json_decref(all);
    return decode;
}

static void test_exceeded_limits_are_said(void)
{
    for (int bad = 0; bad < 2; bad++) {
        json_t *decode = decode_beside(bad ? 190 : 196, true);
        const json_t *suspect = json_object_get(decode, "suspect");
        const json_t *ops = json_object_get(json_object_get(decode, "profile"), "ops");
        const json_t *op = json_object_get(json_array_get(ops, 0), "suspect");
        CHECK(json_is_boolean(suspect) && json_is_true(suspect) == bad);
        CHECK(json_is_boolean(op) && json_is_true(op) == bad);
        json_decref(decode);
    }
}

/* A row that a cache feeds stands beside that cache, and its line says so. */
static void test_limits_of_few_bytes(void)
{
    const struct machine_limits limits = {.bytes = 100, .products = 1e18};
    struct profile *p = calloc(1, sizeof *p);
    struct buffer out = {0};
    REQUIRE(p);
    p->n = 2;
    p->rows[0] = (struct profile_row){.name = "far", .ns = 1000000000, .bytes = 150};
    p->rows[1] = (struct profile_row){
        .name = "near", .ns = 1000000000, .bytes = 150, .own_bytes = 20000, .own_rate = 300};
    CHECK(profile_of_limit(&p->rows[0], &limits) == 1.5);
    CHECK(profile_of_limit(&p->rows[1], &limits) == 0.5);
    p->rows[1].own_rate = 50;
    CHECK(profile_of_limit(&p->rows[1], &limits) == 1.5, "the machine does more");
    p->rows[1].own_rate = 300;
    profile_print(p, "decode", 1, 2000000000, &limits, &out);
    CHECK(strstr(out.data, "150.0: limit measured badly\n"), "%s", out.data);
    CHECK(strstr(out.data, "50.0 of a cache for 0.02 MB\n"), "%s", out.data);
    buffer_release(&out);
    free(p);
}

static void test_drive(void)
{
    struct sluice_error err;
    sluice_engine *engine;
    struct sluice_engine_options options;
    sluice_engine_options_default(&options);
    options.io = SLUICE_IO_MMAP;
    REQUIRE(sluice_engine_open(&engine, MODEL, &options, &err) == SLUICE_OK, "%s", err.message);
    for (int uring = 1; uring >= 0; uring--) {
        struct drive_probe probe;
        REQUIRE(drive_open(&probe, engine, &err) == SLUICE_OK, "%s", err.message);
        CHECK(probe.n_files && probe.piece % 4096 == 0 && probe.most_depth == 64);
        probe.uring = probe.uring && uring;
        for (size_t i = 0; i < DRIVE_DEPTHS; i++) {
            double rate = 0;
            CHECK(drive_measure(&probe, drive_depths[i], 0.02, &rate, &err) == SLUICE_OK, "%s",
                  err.message);
            CHECK(rate >= 0, "%g", rate);
        }
        /* What cannot be read is an error that names the file. */
        close(probe.files[0].fd);
        probe.files[0].fd = -1;
        double rate;
        enum sluice_status status = SLUICE_OK;
        for (int i = 0; i < 2000 && status == SLUICE_OK; i++)
            status = drive_measure(&probe, 4, 0.01, &rate, &err);
        CHECK(status == SLUICE_E_IO && strstr(err.message, "safetensors: at "), "%s", err.message);
        drive_close(&probe);
    }
    sluice_engine_close(&engine);
}

#define CASES(C)                                                                                   \
    C(medians)                                                                                     \
    C(equal_runs_pass_the_gate)                                                                    \
    C(differences_do_not_pass_the_gate)                                                            \
    C(the_gate_compares_with_exact)                                                                \
    C(the_gate_knows_near_from_wrong)                                                              \
    C(made_up_routes)                                                                              \
    C(bad_routes)                                                                                  \
    C(routes_of_models_with_dense_layers)                                                          \
    C(forced_experts_are_used)                                                                     \
    C(dram)                                                                                        \
    C(small_memory)                                                                                \
    C(peak)                                                                                        \
    C(profile_adds_up)                                                                             \
    C(exceeded_limits_are_measured_again)                                                          \
    C(exceeded_limits_are_said)                                                                    \
    C(limits_of_few_bytes)                                                                         \
    C(drive)
CHECK_MAIN(CASES)

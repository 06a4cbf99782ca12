/* The public calls on engines and sessions: errors, threads, counters, versions of structs. */
#include "engine_fixture.h"

static void test_bad_segments(void)
{
    struct sluice_error err;
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    int32_t ids[] = {5, 6, 7};
    struct sluice_segment good = {f.session, ids, 3, 1}, s = good;
#define EVAL(...)                                                                                  \
    sluice_eval(f.engine, (struct sluice_segment[]){__VA_ARGS__},                                  \
                sizeof((struct sluice_segment[]){__VA_ARGS__}) / sizeof(struct sluice_segment),    \
                NULL, f.p.logits, &err)
    FAILS(ARGUMENT, "the call has no segments",
          sluice_eval(f.engine, &good, 0, NULL, f.p.logits, &err));
    s.n_ids = s.n_logits = 0;
    FAILS(ARGUMENT, "segment 0 has no tokens", EVAL(s));
    s = good;
    s.n_logits = 4;
    FAILS(ARGUMENT, "segment 0 asks for logits of 4 tokens, but has 3", EVAL(s));
    FAILS(ARGUMENT, "segment 1: its session is in the call twice", EVAL(good, good));
    char text[128];
    ids[2] = (int32_t)f.p.vocab;
    snprintf(text, sizeof text, "id %u at position 2 is outside the vocabulary of %u", f.p.vocab,
             f.p.vocab);
    FAILS(ARGUMENT, text, EVAL(good));
    ids[1] = -1;
    snprintf(text, sizeof text, "id -1 at position 1 is outside the vocabulary of %u", f.p.vocab);
    FAILS(ARGUMENT, text, EVAL(good));
    ids[1] = INT32_MIN;
    snprintf(text, sizeof text, "id -2147483648 at position 1 is outside the vocabulary of %u",
             f.p.vocab);
    FAILS(ARGUMENT, text, EVAL(good));
    CHECK(sluice_session_position(f.session) == 3);
    ids[1] = ids[2] = 0;
    CHECK_OK(EVAL(good)); /* the failed calls left no mark on the session */
    CHECK(sluice_session_position(f.session) == 6);
    fixture_close(&f);
}

static void test_session_of_another_engine(void)
{
    struct sluice_error err;
    struct fixture f, other;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    fixture_open(&other, &o);
    struct sluice_segment segments[] = {prompt_segment(&f.p, f.session, 0, 2),
                                        prompt_segment(&f.p, other.session, 0, 2)};
    FAILS(ARGUMENT, "segment 1: its session is of another engine",
          sluice_eval(f.engine, segments, 2, NULL, f.p.logits, &err));
    CHECK(sluice_session_position(f.session) == 3 && sluice_session_position(other.session) == 3);
    fixture_close(&other);
    fixture_close(&f);
}

static void test_error_may_be_null(void)
{
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    CHECK(prompt_eval(&f.p, f.engine, f.session, 0, 50, f.p.logits, NULL) == SLUICE_E_CONTEXT_FULL);
    sluice_engine *none = f.engine;
    CHECK(sluice_engine_open(&none, "tests/no such folder", NULL, NULL) == SLUICE_E_NOT_FOUND);
    CHECK(none == NULL);
    fixture_close(&f);
}

/* A call that does not fit changes nothing: what fits goes on with the same bits. */
static void test_full_context(void)
{
    struct fixture f;
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    struct prompt want = prompt_make(f.p.vocab, 40, 1);
    prompt_run(&want, f.engine);
    CHECK(sluice_session_capacity(f.session) == 40);
    FAILS(CONTEXT_FULL, "the context of 40 tokens is full: it holds 3 and 38 more were given",
          prompt_eval(&f.p, f.engine, f.session, 3, 38, f.p.logits, &err));
    CHECK(sluice_session_position(f.session) == 3);
    CHECK_OK(prompt_eval(&f.p, f.engine, f.session, 3, 37, f.p.logits + 3 * f.p.vocab, &err));
    CHECK(first_difference(&want, f.p.logits) == 40);
    FAILS(CONTEXT_FULL, "the context of 40 tokens is full: it holds 40 and 1 more were given",
          prompt_eval(&f.p, f.engine, f.session, 0, 1, f.p.logits, &err));
    prompt_release(&want);
    fixture_close(&f);
}

static void test_full_context_of_one_spares_the_other(void)
{
    struct sluice_error err;
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    sluice_session *other = run_session(f.engine);
    struct sluice_segment segments[] = {prompt_segment(&f.p, other, 0, 2),
                                        prompt_segment(&f.p, f.session, 0, 38)};
    FAILS(CONTEXT_FULL, "the context of 40 tokens is full: it holds 3 and 38 more were given",
          sluice_eval(f.engine, segments, 2, NULL, f.p.logits, &err));
    CHECK(sluice_session_position(other) == 0 && sluice_session_position(f.session) == 3);
    sluice_session_close(&other);
    fixture_close(&f);
}

static void test_hidden_needs_keep_hidden(void)
{
    struct sluice_error err;
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    struct sluice_eval_options eval;
    fixture_open(&f, &o);
    sluice_eval_options_default(&eval);
    eval.hidden = f.p.logits;
    struct sluice_segment s = prompt_segment(&f.p, f.session, 3, 2);
    FAILS(STATE, "hidden states were asked for, but the engine was opened without keep_hidden",
          sluice_eval(f.engine, &s, 1, &eval, NULL, &err));
    CHECK(sluice_session_position(f.session) == 3);
    fixture_close(&f);
}

/* logits NULL: the tokens count, nothing is written. */
static void test_logits_not_wanted(void)
{
    struct sluice_error err = {0};
    struct fixture f;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    fixture_open(&f, &o);
    CHECK_OK(prompt_eval(&f.p, f.engine, f.session, 3, 30, NULL, &err));
    CHECK(sluice_session_position(f.session) == 33);
    fixture_close(&f);
}

/* Opens with one option changed. */
#define OPEN_FAILS(code, text, ...)                                                                \
    do {                                                                                           \
        struct sluice_error err;                                                                   \
        struct sluice_engine_options o = run_options(SLUICE_FAST, 1);                              \
        sluice_engine *engine = (sluice_engine *)&o;                                               \
        __VA_ARGS__;                                                                               \
        FAILS(code, text, sluice_engine_open(&engine, packed_model, &o, &err));                    \
        CHECK(engine == NULL);                                                                     \
    } while (0)

static void test_bad_options(void)
{
    OPEN_FAILS(ARGUMENT, "1025 threads were asked for; at most 1024 are possible",
               o.n_threads = 1025);
    OPEN_FAILS(ARGUMENT, "4294967295 threads were asked for; at most 1024 are possible",
               o.n_threads = UINT32_MAX);
    OPEN_FAILS(ARGUMENT, "a batch of 65537 tokens was asked for; at most 65536 fit",
               o.max_batch_tokens = 65537);
    OPEN_FAILS(ARGUMENT, "precision 7 is neither fast nor exact",
               o.precision = (enum sluice_precision)7);
    OPEN_FAILS(ARGUMENT, "I/O engine 9 is unknown", o.io = (enum sluice_io)9);
    OPEN_FAILS(ARGUMENT, "9 experts per token were asked for; there are 8", o.top_k_experts = 9);
}

static void test_bad_session_options(void)
{
    struct sluice_error err;
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = (sluice_session *)&o;
    struct sluice_session_options s;
    sluice_session_options_default(&s);
    s.n_ctx = (1u << 24) + 1;
    FAILS(ARGUMENT, "a context of 16777217 tokens was asked for; at most 16777216",
          sluice_session_open(&session, engine, &s, &err));
    CHECK(session == NULL);
    sluice_engine_close(&engine);
}

struct log_lines {
    char text[4096];
};

static void keep_line(void *user, enum sluice_log_level level, const char *message)
{
    struct log_lines *log = user;
    size_t len = strlen(log->text);
    snprintf(log->text + len, sizeof log->text - len, "%d:%s\n", (int)level, message);
}

static void test_long_context_is_warned_of(void)
{
    struct sluice_error err = {0};
    struct log_lines log = {""};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    struct sluice_session_options s;
    o.log = keep_line;
    o.log_user = &log;
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session;
    sluice_session_options_default(&s);
    s.n_ctx = 513;
    CHECK_OK(sluice_session_open(&session, engine, &s, &err));
    CHECK(strstr(log.text, "0:a context of 513 tokens is more than the 512 the model was trained "
                           "for\n"),
          "%s", log.text);
    sluice_session_close(&session);
    CHECK_OK(sluice_session_open(&session, engine, NULL, &err));
    CHECK(sluice_session_capacity(session) == 512);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void test_fewer_experts_are_others(void)
{
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    struct sluice_engine_info info = {.size = sizeof info};
    struct prompt p[2];
    for (uint32_t i = 0; i < 2; i++) {
        o.top_k_experts = i ? 2 : 0;
        sluice_engine *engine = run_engine(packed_model, &o);
        sluice_engine_get_info(engine, &info);
        CHECK(info.n_experts == 8 && info.n_experts_used == (i ? 2 : 3));
        p[i] = prompt_make(info.vocab_size, 8, 1);
        prompt_run(&p[i], engine);
        sluice_engine_close(&engine);
    }
    CHECK(first_difference(&p[0], p[1].logits) < 8);
    prompt_release(&p[0]);
    prompt_release(&p[1]);
}

static void test_close_nothing(void)
{
    sluice_engine *engine = NULL;
    sluice_session *session = NULL;
    sluice_engine_close(&engine);
    sluice_session_close(&session);
    CHECK(!engine && !session);
}

static void test_unknown_instruction_set(void)
{
    setenv("SLUICE_CPU", "sse9", 1);
    OPEN_FAILS(ARGUMENT, "SLUICE_CPU is 'sse9', which names no instruction set", (void)0);
    setenv("SLUICE_CPU", "", 1);
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_engine_close(&engine);
    unsetenv("SLUICE_CPU");
}

/* A caller built with an older header passes smaller structs; what it lacks has its default. */
static void test_smaller_structs(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_EXACT, 1);
    o.size = offsetof(struct sluice_engine_options, keep_hidden);
    memset((char *)&o + o.size, 0xee, sizeof o - o.size);
    sluice_engine *engine = run_engine(packed_model, &o);
    struct {
        uint32_t size;
        unsigned char rest[sizeof(struct sluice_engine_info)];
    } info;
    memset(&info, 0xee, sizeof info);
    info.size = offsetof(struct sluice_engine_info, hidden_size);
    sluice_engine_get_info(engine, (struct sluice_engine_info *)(void *)&info);
    for (size_t i = info.size - sizeof info.size; i < sizeof info.rest; i++)
        CHECK(info.rest[i] == 0xee, "byte %zu", i);
    CHECK(((struct sluice_engine_info *)(void *)&info)->vocab_size == run_vocab(engine));
    struct sluice_session_options s = {.size = sizeof s.size, .n_ctx = UINT32_MAX};
    sluice_session *session;
    CHECK_OK(sluice_session_open(&session, engine, &s, &err));
    CHECK(sluice_session_capacity(session) == 512);
    struct sluice_eval_options eval = {.size = offsetof(struct sluice_eval_options, hidden)};
    memset((char *)&eval + eval.size, 0xee, sizeof eval - eval.size);
    struct prompt p = prompt_make(run_vocab(engine), 9, 1);
    struct sluice_segment segment = prompt_segment(&p, session, 0, 9);
    CHECK_OK(sluice_eval(engine, &segment, 1, &eval, p.logits, &err));
    struct sluice_stats stats;
    memset(&stats, 0xee, sizeof stats);
    stats.size = offsetof(struct sluice_stats, logit_rows);
    sluice_engine_get_stats(engine, &stats);
    CHECK(stats.tokens == 9 && stats.logit_rows == 0xeeeeeeeeeeeeeeee);
    struct sluice_tensor_info tensor;
    memset(&tensor, 0xee, sizeof tensor);
    tensor.size = offsetof(struct sluice_tensor_info, rank);
    CHECK(sluice_engine_get_tensor(engine, 0, &tensor) == SLUICE_OK);
    CHECK(tensor.rank == 0xeeeeeeee && tensor.name && tensor.dtype);
    prompt_release(&p);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

/* A newer header's larger struct: the known part is read and written. */
static void test_larger_structs(void)
{
    struct {
        struct sluice_engine_options o;
        char rest[64];
    } options = {.o = run_options(SLUICE_EXACT, 1)};
    options.o.size = sizeof options;
    memset(options.rest, 0xee, sizeof options.rest);
    sluice_engine *engine = run_engine(packed_model, &options.o);
    struct {
        struct sluice_engine_info i;
        unsigned char rest[64];
    } info;
    memset(&info, 0xee, sizeof info);
    info.i.size = sizeof info;
    sluice_engine_get_info(engine, &info.i);
    CHECK(info.i.precision == SLUICE_EXACT && info.rest[0] == 0xee);
    sluice_engine_close(&engine);
}

static void check_tensors(const char *model)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    struct sluice_engine_info info = {.size = sizeof info};
    struct sluice_tensor_info t = {.size = sizeof t};
    sluice_engine *engine = run_engine(model, &o);
    uint64_t dense = 0, expert = 0, skipped = 0;
    sluice_engine_get_info(engine, &info);
    CHECK(strcmp(info.path, model) == 0 && strcmp(info.architecture, "qwen3_5_moe_text") == 0);
    size_t n = sluice_engine_tensor_count(engine);
    for (size_t i = 0; i < n; i++) {
        CHECK(sluice_engine_get_tensor(engine, i, &t) == SLUICE_OK);
        bool is_dense = strcmp(t.kind, "dense") == 0, is_expert = strcmp(t.kind, "expert") == 0;
        CHECK(is_dense || is_expert || strcmp(t.kind, "skipped") == 0, "%s", t.kind);
        *(is_dense ? &dense : is_expert ? &expert : &skipped) += t.bytes;
        CHECK(t.rank <= 8 && t.bytes > 0 && t.offset >= 8 && strstr(t.file, ".safetensors"));
    }
    CHECK(sluice_engine_get_tensor(engine, n, &t) == SLUICE_E_ARGUMENT);
    CHECK(sluice_engine_get_tensor(engine, SIZE_MAX, &t) == SLUICE_E_ARGUMENT);
    /* Small tensors are kept as f32: their stored bytes are no matrix bytes. */
    CHECK(dense > info.dense_bytes && dense - info.dense_bytes <= info.converted_bytes,
          "%s: %" PRIu64 " stored, %" PRIu64 " matrices, %" PRIu64 " converted", model, dense,
          info.dense_bytes, info.converted_bytes);
    CHECK(expert == info.expert_bytes, "%" PRIu64 " is not %" PRIu64, expert, info.expert_bytes);
    CHECK(skipped == info.skipped_bytes);
    uint64_t banks = (uint64_t)info.n_experts * info.n_layers;
    CHECK(info.bytes_per_expert * banks >= info.expert_bytes);
    CHECK(info.n_parameters > 0 && info.scratch_bytes > 0 && info.trained_context == 512);
    sluice_engine_close(&engine);
}

static void test_tensors_add_up(void)
{
    check_tensors(packed_model);
    check_tensors(float_model);
    check_tensors("tests/reference/sharded");
    check_tensors("tests/reference/mlx-mixed");
}

static void test_counters(void)
{
    struct sluice_error err = {0};
    struct sluice_engine_options o = run_options(SLUICE_FAST, 2);
    struct sluice_engine_info info = {.size = sizeof info};
    struct sluice_stats s = {.size = sizeof s};
    sluice_engine *engine = run_engine(packed_model, &o);
    sluice_session *session = run_session(engine);
    sluice_engine_get_info(engine, &info);
    sluice_engine_get_stats(engine, &s);
    CHECK(s.evaluations == 0 && s.tokens == 0 && s.logit_rows == 0 && s.expert_uses == 0);
    struct prompt p = prompt_make(info.vocab_size, 100, 1);
    struct sluice_segment segment = prompt_segment(&p, session, 0, 1);
    CHECK_OK(sluice_eval(engine, &segment, 1, NULL, p.logits, &err));
    sluice_engine_get_stats(engine, &s);
    CHECK(s.evaluations == 1 && s.tokens == 1 && s.logit_rows == 1);
    CHECK(s.expert_uses == info.n_layers * info.n_experts_used, "%" PRIu64, s.expert_uses);
    segment = (struct sluice_segment){session, p.ids, 99, 5};
    CHECK_OK(sluice_eval(engine, &segment, 1, NULL, p.logits, &err));
    sluice_engine_get_stats(engine, &s);
    CHECK(s.evaluations == 3 && s.tokens == 100 && s.logit_rows == 6);
    CHECK(s.expert_uses <= info.n_layers * (info.n_experts_used + 2 * info.n_experts));
    CHECK(s.expert_hits + s.expert_misses == 0 || s.expert_hits + s.expert_misses == s.expert_uses,
          "%" PRIu64 " hits, %" PRIu64 " misses", s.expert_hits, s.expert_misses);
    CHECK(s.eval_ns > 0);
    segment.n_ids = 0;
    CHECK(sluice_eval(engine, &segment, 1, NULL, p.logits, &err) == SLUICE_E_ARGUMENT);
    struct sluice_stats after = {.size = sizeof after};
    sluice_engine_get_stats(engine, &after);
    CHECK(after.evaluations == 3 && after.tokens == 100 && after.expert_uses == s.expert_uses);
    prompt_release(&p);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
}

static void test_end_ids(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    sluice_engine *engine = run_engine("tests/reference/untied-f16", &o);
    uint32_t ends = 0, vocab = run_vocab(engine);
    for (uint32_t id = 0; id < vocab; id++) ends += sluice_engine_is_eos(engine, (int32_t)id);
    CHECK(ends > 1 && ends < 16, "%u", ends);
    CHECK(!sluice_engine_is_eos(engine, -1) && !sluice_engine_is_eos(engine, (int32_t)vocab));
    sluice_engine_close(&engine);
}

static void test_no_tokenizer_is_no_error(void)
{
    struct sluice_engine_options o = run_options(SLUICE_FAST, 1);
    struct log_lines log = {""};
    o.log = keep_line;
    o.log_user = &log;
    sluice_engine *engine = run_engine(packed_model, &o);
    struct sluice_error err = {0};
    CHECK(sluice_engine_tokenizer(engine) == NULL);
    CHECK(sluice_engine_tokenizer_status(engine, &err) == SLUICE_E_NO_TOKENIZER);
    CHECK(err.message[0] && strstr(log.text, err.message), "%s", log.text);
    CHECK(sluice_engine_tokenizer_status(engine, NULL) == SLUICE_E_NO_TOKENIZER);
    sluice_engine_close(&engine);
    o.log = NULL;
    engine = run_engine("models/storyteller", &o);
    CHECK(sluice_engine_tokenizer(engine) != NULL);
    CHECK(sluice_engine_tokenizer_status(engine, NULL) == SLUICE_OK);
    sluice_engine_close(&engine);
}

#define CASES(C)                                                                                   \
    C(bad_segments)                                                                                \
    C(session_of_another_engine)                                                                   \
    C(error_may_be_null)                                                                           \
    C(full_context)                                                                                \
    C(full_context_of_one_spares_the_other)                                                        \
    C(hidden_needs_keep_hidden)                                                                    \
    C(logits_not_wanted)                                                                           \
    C(bad_options)                                                                                 \
    C(bad_session_options)                                                                         \
    C(long_context_is_warned_of)                                                                   \
    C(fewer_experts_are_others)                                                                    \
    C(close_nothing)                                                                               \
    C(unknown_instruction_set)                                                                     \
    C(smaller_structs)                                                                             \
    C(larger_structs)                                                                              \
    C(tensors_add_up)                                                                              \
    C(counters)                                                                                    \
    C(end_ids)                                                                                     \
    C(no_tokenizer_is_no_error)
CHECK_MAIN(CASES)

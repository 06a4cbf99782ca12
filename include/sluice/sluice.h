/*
 * Sluice: inference for Mixture-of-Experts language models larger than memory.
 *
 * Three objects. An *engine* is an opened model: what it computes is fixed at open; shared by
 * threads. A *session* is one timeline of tokens with its state (KV cache, recurrent state); one
 * thread uses it at a time. A *tokenizer* turns text into ids and back; immutable, shared by
 * threads. Options are plain structs: call the matching _default() function, then change what you
 * want; one whose size is still 0 is an error (ARGUMENT).
 *
 * Errors. A call that can fail returns enum sluice_status: SLUICE_OK is 0, errors are negative.
 * The last parameter is a struct sluice_error that receives one sentence saying what failed,
 * where and why; it may be NULL. The library never prints, never exits, and keeps no globals.
 *
 * Ownership. What *_open() returns through its first parameter belongs to the caller, who gives it
 * back with *_close(), which also sets the pointer to NULL; closing NULL does nothing. On failure
 * the pointer is NULL. Sessions are closed before their engine. Everything else is the caller's
 * memory and is only read or written during the call.
 *
 * Threads. Calls on different objects may run at the same time. One evaluation runs at a time per
 * engine; concurrent sluice_eval() calls on one engine queue. A callback may ask the engine that
 * calls it for counters, but not to evaluate (STATE), and it leaves the call's sessions alone.
 *
 *     struct sluice_error err;
 *     sluice_engine *engine;
 *     if (sluice_engine_open(&engine, "models/storyteller", NULL, &err)) puts(err.message);
 *     sluice_session *session;
 *     sluice_session_open(&session, engine, NULL, &err);
 *     int32_t ids[64];
 *     size_t n;
 *     sluice_tokenize(sluice_engine_tokenizer(engine), "Once", 4, 0, ids, 64, &n, &err);
 *     struct sluice_segment all = {.session = session, .ids = ids, .n_ids = n, .n_logits = 1};
 *     sluice_eval(engine, &all, 1, NULL, logits, &err);      (logits: float[vocab_size])
 */
#ifndef SLUICE_H
#define SLUICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sluice/version.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLUICE_API __attribute__((visibility("default")))
#define SLUICE_NODISCARD __attribute__((warn_unused_result))
#else
#define SLUICE_API
#define SLUICE_NODISCARD
#endif

/* Status and errors */

enum sluice_status {
    SLUICE_OK = 0,
#define E(name, value, text) SLUICE_E_##name = value,
#include "sluice/errors.def"
#undef E
};

struct sluice_error {
    enum sluice_status code;
    char message[504]; /* one sentence without a full stop, NUL-terminated */
};

/* The meaning of a status in a few words; never NULL. */
SLUICE_API const char *sluice_status_text(enum sluice_status status);

/* Version of the library at run time, "major.minor.patch". */
SLUICE_API const char *sluice_version(void);

/* Engine */

typedef struct sluice_engine sluice_engine;
typedef struct sluice_session sluice_session;
typedef struct sluice_tokenizer sluice_tokenizer;
typedef struct sluice_sampler sluice_sampler;

enum sluice_precision {
    /* f16 KV; activations in int8 groups where weights are packed, in bf16 where these are bf16 and
     * the processor multiplies pairs of bf16 faster than f32 */
    SLUICE_FAST = 0,
    SLUICE_EXACT = 1, /* f32 activations, accumulation and KV */
};

enum sluice_log_level { SLUICE_LOG_WARNING = 0, SLUICE_LOG_INFO = 1, SLUICE_LOG_DEBUG = 2 };

enum sluice_io {
    SLUICE_IO_AUTO = 0,  /* io_uring where it works, else pread */
    SLUICE_IO_URING = 1, /* io_uring or an error */
    SLUICE_IO_PREAD = 2, /* a pool of threads that call pread */
    SLUICE_IO_MMAP = 3,  /* no expert store: experts are mapped and the page cache decides */
};

/* Which expert leaves when a slot is needed. */
enum sluice_policy {
    SLUICE_POLICY_LRU = 0,   /* least recently used */
    SLUICE_POLICY_LFU = 1,   /* least frequently used, with decay */
    SLUICE_POLICY_LFUDA = 2, /* longest idle, later the more it was used; scans do not flush it */
    SLUICE_POLICY_AUTO = 3,  /* whichever would have read least lately; the default */
};

/* What the kernel is told of experts that are mapped (madvise). It changes no bit of any result. */
enum sluice_mmap_advice {
    SLUICE_MMAP_NORMAL = 0,   /* nothing; the default */
    SLUICE_MMAP_RANDOM = 1,   /* that they are read here and there */
    SLUICE_MMAP_WILLNEED = 2, /* which ones are computed next */
};

/* How experts are read before the router asks for them. It changes no bit of any result. */
enum sluice_prefetch {
    SLUICE_PREFETCH_OFF = 0,    /* not at all, but by prompts that need nearly all of them; the
                                   default */
    SLUICE_PREFETCH_LAST = 1,   /* those that the layer used for the session's last token */
    SLUICE_PREFETCH_ROUTER = 2, /* those that its router chooses when shown the stream before
                                   attention */
    SLUICE_PREFETCH_AUTO = 3,   /* whichever makes tokens faster here, if any does */
};

/* Receives one line of text without newline. May be called from the thread inside a call. */
typedef void sluice_log_fn(void *user, enum sluice_log_level level, const char *message);

struct sluice_engine_options {
    uint32_t size;             /* sizeof of this struct, set by _default */
    uint32_t n_threads;        /* compute threads, the caller included; 0: one per fast core */
    uint32_t max_batch_tokens; /* tokens evaluated at once; longer inputs are cut; 0: 512 to 2048,
                                  as memory and plan_ctx (or the trained context) allow */
    enum sluice_precision precision; /* default SLUICE_FAST */
    bool keep_hidden;                /* evaluations can return the residual stream per layer */
    uint32_t top_k_experts;          /* experts per token instead of the model's; 0: the model's */
    sluice_log_fn *log;              /* NULL: silent */
    void *log_user;
    uint64_t ram_bytes; /* most memory for everything; 0: what the system and cgroup have to give */
    uint32_t n_slots;   /* expert slots, instead of what ram_bytes leaves; 0: off */
    enum sluice_io io;  /* how experts are read; default SLUICE_IO_AUTO */
    uint32_t queue_depth;      /* reads in flight; 0: 32, and beyond two of them 8 MiB */
    enum sluice_policy policy; /* default SLUICE_POLICY_AUTO */
    bool preload;              /* fill the expert slots at open */
    uint32_t plan_ctx; /* tokens of context the memory plan keeps room for; 0: the default */
    /*
     * For studies of routing and caches. route chooses the experts of one token in one layer
     * instead of the router: k distinct ids, ascending; their weights become 1 / k, so the text
     * means nothing. routed is told what was chosen: ids [n_tokens][k]. layer counts those with
     * routed experts, from 0, token from the opening of the engine. Called on the thread inside
     * sluice_eval(). NULL: off.
     */
    void (*route)(void *user, uint32_t layer, uint64_t token, uint32_t k, int32_t *ids);
    void (*routed)(void *user, uint32_t layer, uint32_t n_tokens, uint32_t k, const int32_t *ids);
    void *route_user;
    /* Told how far reading weights at open has come; NULL: not wanted. */
    void (*load_progress)(void *user, uint64_t done, uint64_t total);
    void *load_user;
    /*
     * Default true: in a packed store, dense tensors are compared with their checksums at open and
     * each expert when it is read for the first time. Experts that are mapped are not.
     */
    bool verify;
    enum sluice_prefetch prefetch; /* default SLUICE_PREFETCH_OFF */
    /*
     * What sluice_engine_write_heat() wrote for this model, read during the call that opens: the
     * experts that decoding used most are read into the slots then. NULL: no profile.
     */
    const void *heat;
    size_t heat_len;
    bool plan_only; /* plan memory and I/O, but read no weights: evaluations give STATE */
    enum sluice_mmap_advice mmap_advice; /* with SLUICE_IO_MMAP; default SLUICE_MMAP_NORMAL */
    /*
     * Rows of logits that are computed at once, for which memory is planned; calls that want more
     * get them in several turns. Generating text needs 1. 0: as many as 16 MiB hold.
     */
    uint32_t max_logit_rows;
    /*
     * Asked often while weights are read, in the call that opens and with load_user; true ends it
     * with SLUICE_E_CANCELLED. NULL: never.
     */
    bool (*load_cancelled)(void *user);
};

SLUICE_API void sluice_engine_options_default(struct sluice_engine_options *options);

/*
 * Opens the model at path: a folder with config.json and safetensors files, a GGUF file (any part
 * of a split one), or a folder of one GGUF model. Dense weights are read into memory, experts when
 * they are needed, unless io is SLUICE_IO_MMAP. options may be NULL.
 * Errors: NOT_FOUND, FORMAT, MISMATCH, UNSUPPORTED, IO, NOMEM, ARGUMENT, BUDGET (ram_bytes are too
 * few, and how many would do), CANCELLED. A missing or unusable tokenizer is no error here.
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_engine_open(sluice_engine **engine, const char *path,
                   const struct sluice_engine_options *options, struct sluice_error *err);
SLUICE_API void sluice_engine_close(sluice_engine **engine);

/*
 * What an engine is and how many bytes it needs now. Strings live as long as the engine.
 */
struct sluice_engine_info {
    uint32_t size;            /* sizeof of this struct, set by the caller */
    const char *architecture; /* model_type of the text model */
    const char *path;
    uint32_t vocab_size;
    uint32_t hidden_size;
    uint32_t n_layers;
    uint32_t n_experts;       /* routed experts per MoE layer */
    uint32_t n_experts_used;  /* experts per token */
    uint32_t trained_context; /* max_position_embeddings */
    uint32_t n_threads;
    enum sluice_precision precision;
    const char *cpu_features; /* what the kernels use, "avx2 fma avx512 ..." */
    uint64_t n_parameters;
    uint64_t dense_bytes;      /* weights every token reads, as stored */
    uint64_t expert_bytes;     /* routed experts, as stored */
    uint64_t bytes_per_expert; /* the largest one */
    uint64_t kv_bytes_per_token;
    uint64_t recurrent_bytes;     /* per session, whatever its length */
    uint64_t scratch_bytes;       /* activations of one batch of max_batch_tokens */
    uint64_t skipped_bytes;       /* tensors of the files that text needs not (vision, MTP) */
    uint64_t converted_bytes;     /* norms and other small tensors kept as f32 */
    bool mapped;                  /* no expert store: the page cache decides */
    uint64_t plan_bytes;          /* the whole plan: everything below and above that is held */
    uint64_t resident_bytes;      /* dense weights in memory of the engine's own */
    uint64_t slot_bytes;          /* expert slots */
    uint64_t session_bytes;       /* KV and recurrent state of sessions that there is room for */
    uint64_t overhead_bytes;      /* program, tokenizer, I/O, tables */
    uint64_t smallest_plan_bytes; /* the least ram_bytes that works */
    uint32_t n_slots;
    const char *io_engine;      /* "io_uring", "pread" or "mmap" */
    const char *io_note;        /* what was refused and why, or "" */
    bool io_direct;             /* reads bypass the page cache */
    uint64_t padding_bytes;     /* of a packed store, between experts */
    uint32_t n_expert_layers;   /* layers with routed experts */
    uint64_t token_dense_bytes; /* of dense_bytes, what one token reads: of the embedding one row */
    uint64_t budget_bytes;      /* what plan_bytes must stay below; 0: mapped */
    uint32_t io_depth;          /* most reads in flight */
    bool io_registered_files, io_registered_buffers; /* with io_uring, for cheaper reads */
    uint32_t max_batch_tokens;                       /* as asked for or chosen */
};

SLUICE_API void sluice_engine_get_info(const sluice_engine *engine,
                                       struct sluice_engine_info *info);

/*
 * Another budget from here on, as ram_bytes when the engine was opened. Expert slots give back at
 * once what is too much, and grow when the next evaluation begins; no result changes. Waits for an
 * evaluation that is under way. Errors: BUDGET (what is the least now), STATE (from a callback),
 * ARGUMENT (experts are mapped).
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_engine_set_ram(sluice_engine *engine, uint64_t ram_bytes, struct sluice_error *err);

/* One step of an evaluation: an op of the model's graph, or "quantize", the rounding of an input.
 */
struct sluice_step {
    const char *op;     /* "matmul"; lives as long as the engine, as all names */
    const char *weight; /* what a projection's matrix is, "o_proj"; "" for other ops */
    uint32_t layer;     /* UINT32_MAX: of none */
    uint32_t n_tokens;  /* of the batch */
    uint64_t ns;        /* of the thread inside sluice_eval() */
    uint64_t waited_ns; /* what that thread waited for others, in the step or right after it */
    uint64_t bytes;     /* of weights and states, read and written, each counted once */
    uint64_t products;  /* of weights with activations */
};

/*
 * From the next evaluation on, step is told about each step when it is over, on the thread inside
 * sluice_eval(); the times of a batch's steps add up to what the batch took. NULL: off. Waits for
 * an evaluation that is under way. Errors: STATE (from a callback).
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_engine_set_profile(sluice_engine *engine,
                          void (*step)(void *user, const struct sluice_step *step), void *user,
                          struct sluice_error *err);

/* One tensor of the checkpoint, in file order. */
struct sluice_tensor_info {
    uint32_t size; /* sizeof of this struct, set by the caller */
    const char *name;
    const char *dtype;
    uint32_t rank;
    uint64_t shape[8];
    uint64_t bytes;
    const char *file;
    uint64_t offset;  /* of the first byte in the file */
    const char *kind; /* "dense", "expert", "skipped" or "padding" */
};

SLUICE_API size_t sluice_engine_tensor_count(const sluice_engine *engine);
/* Errors: ARGUMENT when index is not below the count. */
SLUICE_API enum sluice_status sluice_engine_get_tensor(const sluice_engine *engine, size_t index,
                                                       struct sluice_tensor_info *info);

/* The model's tokenizer, owned by the engine; NULL when it has none that can be used. */
SLUICE_API const sluice_tokenizer *sluice_engine_tokenizer(const sluice_engine *engine);
/* Why sluice_engine_tokenizer() is NULL, as an error; SLUICE_OK when it is not. */
SLUICE_API enum sluice_status sluice_engine_tokenizer_status(const sluice_engine *engine,
                                                             struct sluice_error *err);
/* True for every end-of-sequence id of the model (generation_config.json, config.json). */
SLUICE_API bool sluice_engine_is_eos(const sluice_engine *engine, int32_t id);

/* Sessions */

struct sluice_session_options {
    uint32_t size;  /* sizeof of this struct, set by _default */
    uint32_t n_ctx; /* most tokens the session can hold; 0: min(trained context, 4096) */
};

SLUICE_API void sluice_session_options_default(struct sluice_session_options *options);

/*
 * An empty session. KV memory is taken as it grows, but room for n_ctx is kept from here on: what
 * open sessions need beyond the plan is taken from the expert slots, which get it back when they
 * close. Errors: ARGUMENT, NOMEM, BUDGET (the slots cannot give that much), STATE (they cannot
 * within a callback of an evaluation).
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_session_open(sluice_session **session, sluice_engine *engine,
                    const struct sluice_session_options *options, struct sluice_error *err);
SLUICE_API void sluice_session_close(sluice_session **session);
/* Forgets all tokens; the session is then equal to a new one. */
SLUICE_API void sluice_session_reset(sluice_session *session);
/*
 * For measurements: as if n tokens had been evaluated, with keys and values that are random numbers
 * made from seed. What is evaluated behind them takes the time that it would take behind n tokens,
 * and means nothing. Errors: STATE (the session is not empty), CONTEXT_FULL.
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_session_fill(sluice_session *session, uint32_t n, uint64_t seed, struct sluice_error *err);
SLUICE_API uint32_t sluice_session_position(const sluice_session *session); /* tokens held */
SLUICE_API uint32_t sluice_session_capacity(const sluice_session *session); /* n_ctx */

/* Evaluation */

/* The next n_ids tokens of one session. A session appears at most once in a call. */
struct sluice_segment {
    sluice_session *session;
    const int32_t *ids;
    size_t n_ids;
    size_t n_logits; /* logits are wanted after each of the last n_logits tokens; <= n_ids */
};

struct sluice_eval_options {
    uint32_t size;  /* sizeof of this struct, set by _default */
    uint32_t chunk; /* cut each segment into pieces of at most this many tokens; 0: no need */
    /*
     * Needs keep_hidden: receives f32 [n_layers + 1][all ids of the call][hidden_size]: the
     * embeddings, the output of each layer but the last, and the last one after the final norm.
     * Rows are in the order of the segments. NULL: not wanted.
     */
    float *hidden;
    /*
     * Asked between pieces, and between the layers of a piece of more than 512 tokens; true ends
     * the call with SLUICE_E_CANCELLED, and the piece has not been evaluated.
     */
    bool (*cancelled)(void *user);
    /* Told after each piece how many of the ids of the call are done. */
    void (*progress)(void *user, size_t done, size_t total);
    void *user;
};

SLUICE_API void sluice_eval_options_default(struct sluice_eval_options *options);

/*
 * Evaluates all segments and extends their sessions. logits receives f32 [sum of n_logits]
 * [vocab_size], segments in order. How the ids are cut into calls, segments and chunks, what else
 * is in the call and the number of threads change no bit of the result.
 *
 * logits may be NULL: the tokens are evaluated and no rows are written.
 *
 * Errors: ARGUMENT (id out of range, session twice, n_logits > n_ids, empty segment), CONTEXT_FULL,
 * STATE (from a callback; hidden without keep_hidden; plan_only); these change nothing. CANCELLED,
 * NOMEM, IO: each session holds the tokens that were done, as its position says.
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_eval(sluice_engine *engine, const struct sluice_segment *segments, size_t n_segments,
            const struct sluice_eval_options *options, float *logits, struct sluice_error *err);

/*
 * Tokenizer. A call that is given NULL for one, as sluice_engine_tokenizer() returns, fails with
 * NO_TOKENIZER.
 */

/* Opens the tokenizer of a model or of a GGUF vocabulary. Errors: NO_TOKENIZER, FORMAT, ... */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_tokenizer_open(sluice_tokenizer **tokenizer, const char *path, struct sluice_error *err);
SLUICE_API void sluice_tokenizer_close(sluice_tokenizer **tokenizer);
SLUICE_API uint32_t sluice_tokenizer_vocab_size(const sluice_tokenizer *tokenizer);
/*
 * The template, in Jinja, by which the model's authors write a conversation as text; it ends with
 * NUL and lives as long as the tokenizer. NULL when the model comes without. len may be NULL.
 */
SLUICE_API const char *sluice_tokenizer_chat_template(const sluice_tokenizer *tokenizer,
                                                      size_t *len);

enum sluice_tokenize_flags {
    SLUICE_TOKENIZE_NO_SPECIAL = 1, /* do not add what the post-processor adds (BOS) */
    SLUICE_TOKENIZE_PLAIN = 2,      /* text that looks like a special token is text */
};

/*
 * ids of text[0..len). *n is the number of ids even when it exceeds cap (then only cap are
 * written; call again with room). text is UTF-8; an invalid byte becomes U+FFFD, as in the
 * reference implementation.
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_tokenize(const sluice_tokenizer *tokenizer, const char *text, size_t len, unsigned flags,
                int32_t *ids, size_t cap, size_t *n, struct sluice_error *err);

enum sluice_detokenize_flags {
    SLUICE_DETOKENIZE_SKIP_SPECIAL = 1, /* leave special tokens out */
};

/*
 * Text of the ids; *len as *n above. Bytes that form no UTF-8 character become U+FFFD, as in the
 * reference implementation. No NUL is added. Errors: ARGUMENT (id out of range).
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_detokenize(const sluice_tokenizer *tokenizer, const int32_t *ids, size_t n, unsigned flags,
                  char *text, size_t cap, size_t *len, struct sluice_error *err);

/*
 * Bytes of a token and whether it is special; *bytes lives as long as the tokenizer; special may be
 * NULL.
 */
SLUICE_API enum sluice_status sluice_token_bytes(const sluice_tokenizer *tokenizer, int32_t id,
                                                 const char **bytes, size_t *len, bool *special);

/* Streaming decode: never emits half a UTF-8 character. Start with a zeroed struct. */
struct sluice_text_stream {
    unsigned char pending[4];
    uint8_t n_pending;
};
/*
 * The text that id completes goes to out, at most cap bytes; three times the token's bytes and 3
 * suffice. With less room nothing happens, and *len is what is needed (ARGUMENT).
 * Bytes that cannot become UTF-8 are emitted as U+FFFD. Special tokens give no text.
 */
SLUICE_API enum sluice_status sluice_text_stream_push(struct sluice_text_stream *stream,
                                                      const sluice_tokenizer *tokenizer, int32_t id,
                                                      char *out, size_t cap, size_t *len,
                                                      struct sluice_error *err);
/* What is pending at the end, as U+FFFD when it is half a character; at most 3 bytes. */
SLUICE_API size_t sluice_text_stream_finish(struct sluice_text_stream *stream, char out[4]);

/* Sampling */

struct sluice_logit_bias {
    int32_t id;
    float bias;
};

/*
 * Order of application: bias, penalties, temperature, top-k, top-p, min-p, draw. A temperature of
 * 0 takes the largest logit (the lowest id among equals) after bias and penalties.
 */
struct sluice_sampler_options {
    uint32_t size;           /* sizeof of this struct, set by _default */
    float temperature;       /* >= 0; default 0.8 */
    uint32_t top_k;          /* 0: off; default 40 */
    float top_p;             /* in (0, 1]; 1: off; default 0.95 */
    float min_p;             /* in [0, 1); 0: off; default 0.05 */
    float repeat_penalty;    /* > 0; 1: off; divides positive, multiplies negative logits */
    float presence_penalty;  /* subtracted once from each id seen */
    float frequency_penalty; /* subtracted per occurrence */
    uint32_t penalty_window; /* last accepted ids that penalties look at; default 64 */
    uint64_t seed;           /* default 0 */
    const struct sluice_logit_bias *bias; /* copied; -INFINITY bans an id */
    size_t n_bias;
};

SLUICE_API void sluice_sampler_options_default(struct sluice_sampler_options *options);
/* Errors: ARGUMENT (an option out of range), NOMEM. */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_sampler_open(sluice_sampler **sampler, uint32_t vocab_size,
                    const struct sluice_sampler_options *options, struct sluice_error *err);
SLUICE_API void sluice_sampler_close(sluice_sampler **sampler);
/* Tells the sampler of a token that is now part of the text (prompt or drawn). */
SLUICE_API void sluice_sampler_accept(sluice_sampler *sampler, int32_t id);
/* Draws an id from logits[vocab_size], which are changed. Not accepted by itself. Never fails. */
SLUICE_API int32_t sluice_sampler_draw(sluice_sampler *sampler, float *logits);

/*
 * Studies of routing and caches
 *
 * A trace holds which experts every layer picked for every batch of a run, in about one byte a
 * pick. It can be replayed against the cache's policies, or force the routing of another run. None
 * of these objects is used by two threads at a time.
 */

typedef struct sluice_trace_writer sluice_trace_writer;
typedef struct sluice_trace_reader sluice_trace_reader;
typedef struct sluice_route sluice_route;

/* Takes len bytes in full, or fails: status and *err then become those of the call. */
typedef enum sluice_status sluice_write_fn(void *user, const void *data, size_t len,
                                           struct sluice_error *err);

/* A trace of the engine's model, which goes to write. Errors: UNSUPPORTED (no experts), NOMEM. */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_trace_writer_open(sluice_trace_writer **writer, const sluice_engine *engine,
                         sluice_write_fn *write, void *user, struct sluice_error *err);
/*
 * The next layer of a batch, as sluice_engine_options.routed is told it: ids [n_tokens][k].
 * prefill: the batch is part of a prompt. Errors: ARGUMENT, and those of write, which repeat.
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status sluice_trace_append(sluice_trace_writer *writer,
                                                                   uint32_t n_tokens, bool prefill,
                                                                   uint32_t k, const int32_t *ids,
                                                                   struct sluice_error *err);
/* Writes what is buffered. Errors: ARGUMENT (layers of the last batch are missing), and write's. */
SLUICE_NODISCARD SLUICE_API enum sluice_status sluice_trace_flush(sluice_trace_writer *writer,
                                                                  struct sluice_error *err);
/* Drops what was not flushed. */
SLUICE_API void sluice_trace_writer_close(sluice_trace_writer **writer);

struct sluice_trace_info {
    uint32_t size;           /* sizeof of this struct, set by the caller */
    uint32_t n_layers;       /* with routed experts */
    uint32_t n_experts;      /* per layer */
    uint32_t n_experts_used; /* per token */
    uint8_t fingerprint[16]; /* of the tensors' names, types and shapes */
};

/* One layer of one batch; the arrays are valid until the next call. */
struct sluice_trace_step {
    uint64_t batch;
    uint32_t layer; /* among those with routed experts */
    uint32_t n_tokens;
    bool prefill;
    uint32_t n;              /* distinct experts */
    const uint32_t *experts; /* [n], ascending */
    const uint32_t *counts;  /* [n], tokens that picked each */
};

/* bytes must outlive the reader. Errors: FORMAT, UNSUPPORTED, NOMEM. */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_trace_reader_open(sluice_trace_reader **reader, const void *bytes, size_t len,
                         struct sluice_error *err);
SLUICE_API void sluice_trace_reader_info(const sluice_trace_reader *reader,
                                         struct sluice_trace_info *info);
/* The next step; its n is 0 at the end. Errors: FORMAT, naming offset and step. */
SLUICE_NODISCARD SLUICE_API enum sluice_status sluice_trace_next(sluice_trace_reader *reader,
                                                                 struct sluice_trace_step *step,
                                                                 struct sluice_error *err);
SLUICE_API void sluice_trace_reader_close(sluice_trace_reader **reader);

/* Made-up routing: experts drawn by popularity, and again from those of the layer's last token. */
struct sluice_route_options {
    uint32_t size; /* sizeof of this struct, set by _default */
    uint32_t n_layers, n_experts, n_experts_used;
    double zipf;  /* an expert of rank r has weight r^-zipf, ranks differ by layer; 0: uniform */
    double reuse; /* chance that an expert of the last token is used again; below 0: as drawn */
    double drift; /* chance per token and layer that two ranks change places */
    uint64_t seed;
};

SLUICE_API void sluice_route_options_default(struct sluice_route_options *options);
/* Errors: ARGUMENT (an option out of range), NOMEM. */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_route_open(sluice_route **route, const struct sluice_route_options *options,
                  struct sluice_error *err);
/* The experts that the layer's next token picks: [n_experts_used], ascending. */
SLUICE_API void sluice_route_pick(sluice_route *route, uint32_t layer, uint32_t *experts);
SLUICE_API void sluice_route_close(sluice_route **route);

/* What a policy would have done with so many slots. */
struct sluice_cache_sim_row {
    const char *policy; /* "lru", ...; "optimum" knows the future */
    uint32_t capacity;  /* slots */
    uint64_t decode_hits, decode_misses, prefill_hits, prefill_misses;
    double hit_rate;   /* of all uses */
    uint64_t switches; /* how often "auto" changed the policy it follows */
};

struct sluice_cache_sim_options {
    uint32_t size;              /* sizeof of this struct, set by _default */
    const uint32_t *capacities; /* slots, ascending; NULL: tenths of all experts */
    size_t n_capacities;
    const char *title; /* of the plot */
    /* Called for each capacity and policy, in this order; "optimum" comes last. */
    void (*row)(void *user, const struct sluice_cache_sim_row *row);
    void *row_user;
    sluice_write_fn *svg; /* receives a plot of hit rates over capacities; NULL: not wanted */
    void *svg_user;
};

SLUICE_API void sluice_cache_sim_options_default(struct sluice_cache_sim_options *options);
/* Replays trace[0..len). Errors: FORMAT, UNSUPPORTED, ARGUMENT, NOMEM, and those of svg. */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_cache_sim(const void *trace, size_t len, const struct sluice_cache_sim_options *options,
                 struct sluice_error *err);

/*
 * A heat profile: how often decoding used each expert, of the profile that the engine was opened
 * with and of what it evaluated since; about two bytes an expert, written in one piece. Errors:
 * ARGUMENT (experts are mapped), NOMEM, and those of write.
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status sluice_engine_write_heat(const sluice_engine *engine,
                                                                        sluice_write_fn *write,
                                                                        void *user,
                                                                        struct sluice_error *err);

/* Statistics since the engine was opened */

struct sluice_stats {
    uint32_t size; /* sizeof of this struct, set by the caller */
#define M(name, unit, text) uint64_t name;
#include "sluice/metrics.def"
#undef M
};

SLUICE_API void sluice_engine_get_stats(const sluice_engine *engine, struct sluice_stats *stats);

/*
 * Packing: a copy of a model laid out for streaming. It is an ordinary model folder, in which each
 * routed expert lies in one piece at a multiple of 4096 bytes, with a manifest "sluice.pack.json"
 * of checksums. docs/formats.md has the details.
 */

struct sluice_pack_options {
    uint32_t size; /* sizeof of this struct, set by _default */
    bool verify;   /* at the end, read all of the pack and compare it with the checksums */
    /* Most bytes of weights in a file unless one tensor has more; 0: as begun, else about 4 GiB. */
    uint64_t shard_bytes;
    /*
     * Told how many bytes of a phase are done; doing is what the phase does: "checking" (shards of
     * an earlier call), "packing" or "verifying". NULL: not wanted.
     */
    void (*progress)(void *user, const char *doing, uint64_t done, uint64_t total);
    /* Asked often; true ends the call with SLUICE_E_CANCELLED. NULL: never. */
    bool (*cancelled)(void *user);
    void *user;
    sluice_log_fn *log; /* NULL: silent */
    void *log_user;
};

SLUICE_API void sluice_pack_options_default(struct sluice_pack_options *options);

/*
 * Packs the model folder into another one, which is made. Whatever ends a call early (an error, a
 * full disk, SIGKILL), the same call goes on: shards that are complete are kept when their
 * checksums hold. The folder is a model only when everything is there. options may be NULL. Errors:
 * those of opening a model; ARGUMENT (the folder holds something else), MISMATCH (it holds a pack
 * of another model, or the model has changed since), STATE (another process is packing into it),
 * UNSUPPORTED (the model has no routed experts), IO (also: too little room, and how much is
 * needed), CANCELLED, FORMAT (verify found damage: file, tensor, layer and expert).
 */
SLUICE_NODISCARD SLUICE_API enum sluice_status
sluice_pack(const char *model, const char *folder, const struct sluice_pack_options *options,
            struct sluice_error *err);

#ifdef __cplusplus
}
#endif

#endif

/*
 * Small tokenizers for tests: tokenizer.json texts with the 256 bytes as ids 0 to 255 and whatever
 * a recipe adds. Fields that are NULL take what is simplest.
 */
#ifndef TESTS_TOKEN_MAKE_H
#define TESTS_TOKEN_MAKE_H

#include <stdlib.h>

#include "base/utf8.h"
#include "check.h"
#include "token/tokenizer.h"

struct recipe {
    const char *added;                             /* items of added_tokens */
    const char *normalizer, *pre, *post, *decoder; /* values */
    const char *fields;                            /* of model, each followed by a comma */
    const char *vocab;                             /* more entries, each after a comma */
    const char *merges;                            /* the value */
    const char *config;                            /* text of tokenizer_config.json */
};

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define GPT2_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define SPLIT(kind, pattern, behavior, invert)                                                     \
    "{\"type\":\"Split\",\"pattern\":{\"" kind "\":\"" pattern "\"},\"behavior\":\"" behavior      \
    "\",\"invert\":" invert "}"
#define SEQUENCE(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "," BYTE_LEVEL "]}"

static inline const char *make_or(const char *value, const char *fallback)
{
    return value ? value : fallback;
}

/* ,"c":b for each byte; the first without the comma. */
static inline void make_bytes(struct text_buffer *out)
{
    struct byte_alphabet alphabet;
    byte_alphabet_init(&alphabet);
    for (uint32_t cp = 0, n = 0; cp < BYTE_ALPHABET_END; cp++) {
        if (alphabet.byte_of[cp] < 0) continue;
        char entry[40];
        int len = snprintf(entry, sizeof entry, "%s\"\\u%04x\":%d", n++ ? "," : "", cp,
                           alphabet.byte_of[cp]);
        text_append(out, entry, (size_t)len);
    }
}

static inline void make_text(struct text_buffer *out, const char *s)
{
    text_append(out, s, strlen(s));
}

static inline struct text_buffer make_json(const struct recipe *r)
{
    struct text_buffer out = {0};
    make_text(&out, "{\"added_tokens\":[");
    make_text(&out, make_or(r->added, ""));
    make_text(&out, "],\"normalizer\":");
    make_text(&out, make_or(r->normalizer, "null"));
    make_text(&out, ",\"pre_tokenizer\":");
    make_text(&out, make_or(r->pre, BYTE_LEVEL));
    make_text(&out, ",\"post_processor\":");
    make_text(&out, make_or(r->post, "null"));
    make_text(&out, ",\"decoder\":");
    make_text(&out, make_or(r->decoder, "{\"type\":\"ByteLevel\"}"));
    make_text(&out, ",\"model\":{\"type\":\"BPE\",");
    make_text(&out, make_or(r->fields, ""));
    make_text(&out, "\"vocab\":{");
    make_bytes(&out);
    make_text(&out, make_or(r->vocab, ""));
    make_text(&out, "},\"merges\":");
    make_text(&out, make_or(r->merges, "[]"));
    make_text(&out, "}}");
    return out;
}

static inline enum sluice_status make_open(const struct recipe *r, struct sluice_tokenizer **out,
                                           struct sluice_error *err)
{
    struct text_buffer json = make_json(r);
    struct span config = r->config ? span_str(r->config) : span_of(NULL, 0);
    enum sluice_status status =
        tokenizer_parse(text_span(&json), "tokenizer.json", config, "config.json", out, err);
    text_release(&json);
    return status;
}

/* Ids of text as "1 2 3", in static memory; an error's message when it fails. */
static inline const char *make_ids_of(const struct sluice_tokenizer *t, struct span text,
                                      unsigned flags)
{
    static char line[4096];
    static struct sluice_error err;
    int32_t ids[512];
    size_t n, at = 0;
    if (sluice_tokenize(t, (const char *)text.data, text.len, flags, ids, 512, &n, &err))
        return err.message;
    line[0] = '\0';
    for (size_t i = 0; i < n && i < 512; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, i ? " %d" : "%d", ids[i]);
    return line;
}

static inline const char *make_ids(const struct sluice_tokenizer *t, const char *text,
                                   unsigned flags)
{
    return make_ids_of(t, span_str(text), flags);
}

#define CHECK_STR(got, want)                                                                       \
    do {                                                                                           \
        const char *got_ = (got), *want_ = (want);                                                 \
        CHECK(strcmp(got_, want_) == 0, "'%s', not '%s'", got_, want_);                            \
    } while (0)

#endif

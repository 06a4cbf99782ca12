/*
 * A tokenizer of Hugging Face's tokenizer.json, byte-level BPE or SentencePiece's BPE with byte
 * fallback: text to ids as the `tokenizers` library gives them, and back. Immutable after opening,
 * shared by threads; a call has its own scratch memory.
 *
 * Text to ids: invalid UTF-8 becomes U+FFFD; added tokens are cut out; what lies between is
 * normalized and cut into pieces, each is encoded; the post-processor's tokens go around it all.
 */
#ifndef SLUICE_TOKEN_TOKENIZER_H
#define SLUICE_TOKEN_TOKENIZER_H

#include "base/arena.h"
#include "token/added_tokens.h"
#include "token/bpe.h"
#include "token/normalize.h"
#include "token/pretokenize.h"
#include "token/vocabulary.h"

enum { TOKENIZER_MAX_AROUND = 16 };

/* Ids that the post-processor puts before or behind the text. */
struct token_affix {
    uint32_t ids[TOKENIZER_MAX_AROUND];
    size_t n;
};

struct sluice_tokenizer {
    struct vocabulary vocab;
    struct bpe bpe;
    struct pretokenizer pre;
    struct normalizer normalizer;
    bool strip_blank; /* a decoded text loses a blank that it begins with */
    struct token_affix before, behind;
    ARRAY(struct added_token) added;
    struct arena texts;                /* added tokens that normalization changed, the template */
    struct span chat_template;         /* with a NUL behind it; data NULL: none */
    struct added_trie raw, normalized; /* of added, for text before and after normalization */
};

/*
 * Opens the tokenizer in a model folder: tokenizer.json and, if there, tokenizer_config.json and
 * chat_template.jinja; else that of the metadata of a GGUF file, which folder may be itself.
 * Errors: NO_TOKENIZER when there is none, or of a kind that is not known; FORMAT, IO, NOMEM.
 */
enum sluice_status tokenizer_open(const char *folder, struct sluice_tokenizer **out,
                                  struct sluice_error *err);
void tokenizer_close(struct sluice_tokenizer *tokenizer);
/* The error of a public call that was given NULL, as of a model without a tokenizer. */
enum sluice_status tokenizer_missing(struct sluice_error *err);

/*
 * Builds a tokenizer from the text of a tokenizer.json and of a tokenizer_config.json (data NULL:
 * none). Neither is needed afterwards. Names are for messages.
 */
enum sluice_status tokenizer_parse(struct span json, const char *json_name, struct span config,
                                   const char *config_name, struct sluice_tokenizer **out,
                                   struct sluice_error *err);

/*
 * The same for a SentencePiece vocabulary without a list of merges: tokens join by score. scores[n]
 * are those of the ids, n of them above every id of model.vocab.
 */
enum sluice_status tokenizer_parse_scored(struct span json, const char *json_name,
                                          const float *scores, size_t n,
                                          struct sluice_tokenizer **out, struct sluice_error *err);

/*
 * Reads normalizer and decoder (tokenizer_text.c). Errors: NO_TOKENIZER for kinds that are not
 * known, FORMAT.
 */
enum sluice_status normalizer_read(struct sluice_tokenizer *tokenizer, const struct json_node *top,
                                   struct sluice_error *err);
enum sluice_status decoder_read(struct sluice_tokenizer *tokenizer, const struct json_node *top,
                                struct sluice_error *err);

/*
 * The chat template (chat_template.c), a later one in place of an earlier one: a text, that of
 * tokenizer_config.json, or that of a file, if it is there. Errors: FORMAT, IO, NOMEM.
 */
enum sluice_status chat_template_set(struct sluice_tokenizer *tokenizer, struct span text,
                                     struct sluice_error *err);
enum sluice_status chat_template_config(struct sluice_tokenizer *tokenizer, const json_t *config,
                                        const char *file, struct sluice_error *err);
enum sluice_status chat_template_file(struct sluice_tokenizer *tokenizer, const char *path,
                                      struct sluice_error *err);

/* Reads post_processor, and what tokenizer_config.json adds to it. Errors: NO_TOKENIZER, FORMAT. */
enum sluice_status postprocess_read(struct sluice_tokenizer *tokenizer, const json_t *value,
                                    const char *file, struct sluice_error *err);
enum sluice_status postprocess_config(struct sluice_tokenizer *tokenizer, const json_t *config,
                                      const char *file, struct sluice_error *err);

#endif

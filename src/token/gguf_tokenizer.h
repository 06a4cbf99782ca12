/*
 * The tokenizer in the metadata of a GGUF file, byte-level BPE ("gpt2") or SentencePiece's BPE
 * ("llama"): what the keys say is written down as the tokenizer.json it stands for and read as
 * such, so that there is one definition of what a tokenizer does.
 */
#ifndef SLUICE_TOKEN_GGUF_TOKENIZER_H
#define SLUICE_TOKEN_GGUF_TOKENIZER_H

#include "format/gguf.h"
#include "token/tokenizer.h"

/*
 * file is for messages. Errors: NO_TOKENIZER (no tokenizer, or a kind or tokenizer.ggml.pre that is
 * not known), FORMAT (a key's type or value), NOMEM.
 */
enum sluice_status gguf_tokenizer_parse(const struct gguf_header *header, const char *file,
                                        struct sluice_tokenizer **out, struct sluice_error *err);

/* Whether path can only have its tokenizer in GGUF metadata: a file, or a folder of GGUF files. */
bool gguf_tokenizer_at(const char *path);
/* Opens the tokenizer of the GGUF file or folder of GGUF files at path; see tokenizer_open. */
enum sluice_status gguf_tokenizer_open(const char *path, struct sluice_tokenizer **out,
                                       struct sluice_error *err);

#endif

/*
 * A heat profile: how often decoding used each expert, so that the next start can fill its slots
 * with those that are likely. Layout, integers little-endian:
 *
 *   "SluiceHT", u32 version (1), u8[16] fingerprint of the model, u32 layers, u32 experts per
 *   layer, u32 tokens seen (at most HEAT_MEMORY), then for each layer and expert, u16 of the share
 *   of tokens that used it, 65535 being all
 *
 * Tokens that were seen count as at most HEAT_MEMORY, so that what comes later tells.
 */
#ifndef SLUICE_STORE_HEAT_H
#define SLUICE_STORE_HEAT_H

#include "base/err.h"
#include "base/span.h"

enum { HEAT_FINGERPRINT_BYTES = 16, HEAT_HEADER_BYTES = 40, HEAT_MEMORY = 4096 };

struct heat {
    uint8_t fingerprint[HEAT_FINGERPRINT_BYTES];
    uint32_t n_layers, n_experts;
    uint32_t n_tokens; /* seen, at most HEAT_MEMORY */
    uint16_t *shares;  /* [n_layers][n_experts] */
};

/* A profile of nothing. Errors: NOMEM. */
enum sluice_status heat_init(struct heat *heat, uint32_t n_layers, uint32_t n_experts,
                             const uint8_t fingerprint[HEAT_FINGERPRINT_BYTES],
                             struct sluice_error *err);
void heat_release(struct heat *heat);
/*
 * Reads what a file holds into a profile of nothing, which says what is expected of it. Errors:
 * FORMAT, UNSUPPORTED (a later version), MISMATCH (of another model); the profile is then as
 * before.
 */
enum sluice_status heat_parse(struct heat *heat, struct span bytes, struct sluice_error *err);
/* n_tokens more were seen, of which uses[e] used expert e of the layer; heat_seen follows. */
void heat_add(struct heat *heat, uint32_t layer, const uint32_t *uses, uint64_t n_tokens);
/* All layers were told of so many tokens. */
void heat_seen(struct heat *heat, uint64_t n_tokens);
size_t heat_bytes(const struct heat *heat);
/* Writes heat_bytes() bytes. */
void heat_format(const struct heat *heat, uint8_t *out);

#endif

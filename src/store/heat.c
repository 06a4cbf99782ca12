#include "store/heat.h"

#include <stdlib.h>

#include "base/bits.h"

static const char magic[8] = {'S', 'l', 'u', 'i', 'c', 'e', 'H', 'T'};
enum { VERSION = 1, VERSION_AT = 8, FINGERPRINT_AT = 12, LAYERS_AT = 28, EXPERTS_AT = 32 };
enum { TOKENS_AT = 36, ALL = 65535 };

static size_t n_shares(const struct heat *heat)
{
    return (size_t)heat->n_layers * heat->n_experts;
}

enum sluice_status heat_init(struct heat *heat, uint32_t n_layers, uint32_t n_experts,
                             const uint8_t fingerprint[HEAT_FINGERPRINT_BYTES],
                             struct sluice_error *err)
{
    *heat = (struct heat){.n_layers = n_layers, .n_experts = n_experts};
    memcpy(heat->fingerprint, fingerprint, sizeof heat->fingerprint);
    heat->shares = calloc(n_shares(heat) + 1, sizeof *heat->shares);
    return heat->shares ? SLUICE_OK : err_nomem(err, "heat profile", n_shares(heat));
}

void heat_release(struct heat *heat)
{
    free(heat->shares);
    *heat = (struct heat){0};
}

static uint32_t load_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}

size_t heat_bytes(const struct heat *heat)
{
    return HEAT_HEADER_BYTES + 2 * n_shares(heat);
}

static enum sluice_status check_model(const struct heat *heat, const uint8_t *p,
                                      struct sluice_error *err)
{
    uint32_t layers = load_u32(p + LAYERS_AT), experts = load_u32(p + EXPERTS_AT);
    if (layers != heat->n_layers || experts != heat->n_experts)
        return err_set(err, SLUICE_E_MISMATCH,
                       "heat profile: it is of a model with %u layers of %u experts, not %u of %u",
                       layers, experts, heat->n_layers, heat->n_experts);
    if (memcmp(p + FINGERPRINT_AT, heat->fingerprint, sizeof heat->fingerprint) != 0)
        return err_set(err, SLUICE_E_MISMATCH,
                       "heat profile: it is of another model, whose tensors are not these");
    return SLUICE_OK;
}

enum sluice_status heat_parse(struct heat *heat, struct span bytes, struct sluice_error *err)
{
    const uint8_t *p = bytes.data;
    if (bytes.len < HEAT_HEADER_BYTES || memcmp(p, magic, sizeof magic) != 0)
        return err_set(err, SLUICE_E_FORMAT, "heat profile: %zu bytes that are no heat profile",
                       bytes.len);
    uint32_t version = load_u32(p + VERSION_AT), n_tokens = load_u32(p + TOKENS_AT);
    if (version != VERSION)
        return err_set(err, SLUICE_E_UNSUPPORTED, "heat profile: version %u, not %d", version,
                       VERSION);
    TRY(check_model(heat, p, err));
    if (bytes.len != heat_bytes(heat))
        return err_set(err, SLUICE_E_FORMAT, "heat profile: %zu bytes, not %zu", bytes.len,
                       heat_bytes(heat));
    if (n_tokens > HEAT_MEMORY)
        return err_set(err, SLUICE_E_FORMAT, "heat profile: %u tokens seen, over %d", n_tokens,
                       HEAT_MEMORY);
    heat->n_tokens = n_tokens;
    p += HEAT_HEADER_BYTES;
    for (size_t i = 0; i < n_shares(heat); i++)
        heat->shares[i] = (uint16_t)(p[2 * i] | p[2 * i + 1] << 8);
    return SLUICE_OK;
}

void heat_add(struct heat *heat, uint32_t layer, const uint32_t *uses, uint64_t n_tokens)
{
    uint16_t *shares = heat->shares + (size_t)layer * heat->n_experts;
    double old = heat->n_tokens, seen = old + (double)n_tokens;
    for (uint32_t e = 0; e < heat->n_experts && n_tokens; e++) {
        double share = (old * shares[e] + (double)uses[e] * ALL) / seen;
        shares[e] = share >= ALL ? ALL : (uint16_t)(share + 0.5);
    }
}

void heat_seen(struct heat *heat, uint64_t n_tokens)
{
    uint64_t seen = heat->n_tokens + n_tokens;
    heat->n_tokens = seen < HEAT_MEMORY ? (uint32_t)seen : HEAT_MEMORY;
}

void heat_format(const struct heat *heat, uint8_t *out)
{
    memcpy(out, magic, sizeof magic);
    store_u32(out + VERSION_AT, VERSION);
    memcpy(out + FINGERPRINT_AT, heat->fingerprint, sizeof heat->fingerprint);
    store_u32(out + LAYERS_AT, heat->n_layers);
    store_u32(out + EXPERTS_AT, heat->n_experts);
    store_u32(out + TOKENS_AT, heat->n_tokens);
    out += HEAT_HEADER_BYTES;
    for (size_t i = 0; i < n_shares(heat); i++) {
        out[2 * i] = (uint8_t)heat->shares[i];
        out[2 * i + 1] = (uint8_t)(heat->shares[i] >> 8);
    }
}

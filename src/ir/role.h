/*
 * Typed ids. A buffer id carries in its C type what the buffer means in the network, a weight id
 * which weight it is, a state handle which kind of state. Passing one where another is meant does
 * not compile; the few legal widenings are explicit: as_matmul_in(x), as_matrix(w). The member of
 * an id is touched in src/ir only. Id 0 is no buffer.
 */
#ifndef SLUICE_IR_ROLE_H
#define SLUICE_IR_ROLE_H

#include <stdbool.h>
#include <stdint.h>

#include "ir/role.def"
#include "ir/weight.def"

#define R(role, elem, rows, text)                                                                  \
    typedef struct buf_##role {                                                                    \
        uint32_t id;                                                                               \
    } buf_##role;
ROLES(R)
#undef R
#define U(role)                                                                                    \
    typedef struct buf_##role {                                                                    \
        uint32_t id;                                                                               \
    } buf_##role;
UNIONS(U)
#undef U

/* Roles first, then unions. ROLE_NONE is 0. */
enum role {
    ROLE_NONE,
#define R(role, elem, rows, text) ROLE_##role,
    ROLES(R)
#undef R
        ROLE_UNIONS, /* the last role of a buffer, not a role */
#define U(role) ROLE_##role,
    UNIONS(U)
#undef U
        ROLE_COUNT
};

/* One function per listed conversion, then one _Generic per union that picks among them. */
#define C(to, from)                                                                                \
    static inline buf_##to to##_from_##from(buf_##from b)                                          \
    {                                                                                              \
        return (buf_##to){b.id};                                                                   \
    }
#define U(role) CONVERSIONS_##role(C)
UNIONS(U)
#undef U
#undef C
#define ROLE_CASE(to, from) , buf_##from : to##_from_##from
#define as_stream(b) _Generic((b)CONVERSIONS_stream(ROLE_CASE))(b)
#define as_rms_in(b) _Generic((b)CONVERSIONS_rms_in(ROLE_CASE))(b)
#define as_rms_out(b) _Generic((b)CONVERSIONS_rms_out(ROLE_CASE))(b)
#define as_rope_in(b) _Generic((b)CONVERSIONS_rope_in(ROLE_CASE))(b)
#define as_rope_out(b) _Generic((b)CONVERSIONS_rope_out(ROLE_CASE))(b)
#define as_matmul_in(b) _Generic((b)CONVERSIONS_matmul_in(ROLE_CASE))(b)
#define as_matmul_out(b) _Generic((b)CONVERSIONS_matmul_out(ROLE_CASE))(b)
#define as_swiglu_gate(b) _Generic((b)CONVERSIONS_swiglu_gate(ROLE_CASE))(b)
#define as_swiglu_up(b) _Generic((b)CONVERSIONS_swiglu_up(ROLE_CASE))(b)
#define as_swiglu_out(b) _Generic((b)CONVERSIONS_swiglu_out(ROLE_CASE))(b)
#define as_layer_delta(b) _Generic((b)CONVERSIONS_layer_delta(ROLE_CASE))(b)

/* Weights */

#define WR(role, kind, text)                                                                       \
    typedef struct wt_##role {                                                                     \
        uint32_t id;                                                                               \
    } wt_##role;
WEIGHT_ROLES(WR)
#undef WR
#define U(role)                                                                                    \
    typedef struct wt_##role {                                                                     \
        uint32_t id;                                                                               \
    } wt_##role;
WEIGHT_UNIONS(U)
#undef U

enum weight_role {
    WEIGHT_NONE,
#define WR(role, kind, text) WEIGHT_##role,
    WEIGHT_ROLES(WR)
#undef WR
        WEIGHT_UNIONS_, /* the last role of a weight, not a role */
#define U(role) WEIGHT_##role,
    WEIGHT_UNIONS(U)
#undef U
        WEIGHT_COUNT
};

enum weight_kind {
    WEIGHT_KIND_MATRIX,
    WEIGHT_KIND_VECTOR,
    WEIGHT_KIND_CONV,
    WEIGHT_KIND_HEADS,
    WEIGHT_KIND_BANK
};

#define C(to, from)                                                                                \
    static inline wt_##to to##_from_##from(wt_##from w)                                            \
    {                                                                                              \
        return (wt_##to){w.id};                                                                    \
    }
#define U(role) WEIGHT_CONVERSIONS_##role(C)
WEIGHT_UNIONS(U)
#undef U
#undef C
#define WEIGHT_CASE(to, from) , wt_##from : to##_from_##from
#define as_matrix(w) _Generic((w)WEIGHT_CONVERSIONS_matrix(WEIGHT_CASE))(w)
#define as_norm(w) _Generic((w)WEIGHT_CONVERSIONS_norm(WEIGHT_CASE))(w)
#define as_bias(w) _Generic((w)WEIGHT_CONVERSIONS_bias(WEIGHT_CASE))(w)

/*
 * States live in sessions, not in the graph: a handle names (layer, kind), and the op finds each
 * segment's state when it runs. kv_ready is what kv_append returns, so attention cannot be wired
 * before the batch's keys are in the cache; so is latent_ready.
 */
#define STATES(S) S(kv) S(kv_ready) S(latent) S(latent_ready) S(conv) S(delta)
#define S(kind)                                                                                    \
    typedef struct state_##kind {                                                                  \
        uint32_t id;                                                                               \
    } state_##kind;
STATES(S)
#undef S
enum state_kind {
    STATE_NONE,
#define S(kind) STATE_##kind,
    STATES(S)
#undef S
        STATE_COUNT
};

/* Tables over the above. */

enum elem { ELEM_F32, ELEM_I32 };
enum rows { ROWS_TOKENS, ROWS_OUTPUTS, ROWS_PICKS, ROWS_FIXED };

const char *role_name(enum role role);
enum elem role_elem(enum role role); /* roles of buffers only */
enum rows role_rows(enum role role);
/* role itself, or a listed conversion to the union want. */
bool role_converts(enum role have, enum role want);

const char *weight_role_name(enum weight_role role);
enum weight_kind weight_role_kind(enum weight_role role);
bool weight_role_converts(enum weight_role have, enum weight_role want);

const char *state_kind_name(enum state_kind kind);

#endif

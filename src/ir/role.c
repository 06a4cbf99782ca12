#include "ir/role.h"

#include <stddef.h>

struct role_row {
    const char *name;
    enum elem elem;
    enum rows rows;
};

static const struct role_row role_rows_table[ROLE_COUNT] = {
    [ROLE_NONE] = {"none", ELEM_F32, ROWS_FIXED},
#define R(role, elem, rows, text) [ROLE_##role] = {#role, ELEM_##elem, ROWS_##rows},
    ROLES(R)
#undef R
        [ROLE_UNIONS] = {"none", ELEM_F32, ROWS_FIXED},
#define U(role) [ROLE_##role] = {#role, ELEM_F32, ROWS_FIXED},
    UNIONS(U)
#undef U
};

static const struct {
    enum role to, from;
} conversions[] = {
#define C(to, from) {ROLE_##to, ROLE_##from},
#define U(role) CONVERSIONS_##role(C)
    UNIONS(U)
#undef U
#undef C
};

static const struct {
    enum weight_role to, from;
} weight_conversions[] = {
#define C(to, from) {WEIGHT_##to, WEIGHT_##from},
#define U(role) WEIGHT_CONVERSIONS_##role(C)
    WEIGHT_UNIONS(U)
#undef U
#undef C
};

static const struct {
    const char *name;
    enum weight_kind kind;
} weight_rows[WEIGHT_COUNT] = {[WEIGHT_NONE] = {"none", WEIGHT_KIND_VECTOR},
#define WR(role, kind, text) [WEIGHT_##role] = {#role, WEIGHT_KIND_##kind},
                               WEIGHT_ROLES(WR)
#undef WR
                                   [WEIGHT_UNIONS_] = {"none", WEIGHT_KIND_VECTOR},
#define U(role) [WEIGHT_##role] = {#role, WEIGHT_KIND_MATRIX},
                               WEIGHT_UNIONS(U)
#undef U
};

const char *role_name(enum role role)
{
    return role < ROLE_COUNT ? role_rows_table[role].name : "none";
}

enum elem role_elem(enum role role)
{
    return role_rows_table[role].elem;
}

enum rows role_rows(enum role role)
{
    return role_rows_table[role].rows;
}

bool role_converts(enum role have, enum role want)
{
    if (have == want) return have != ROLE_NONE && have != ROLE_UNIONS;
    for (size_t i = 0; i < sizeof conversions / sizeof conversions[0]; i++)
        if (conversions[i].to == want && conversions[i].from == have) return true;
    return false;
}

const char *weight_role_name(enum weight_role role)
{
    return role < WEIGHT_COUNT ? weight_rows[role].name : "none";
}

enum weight_kind weight_role_kind(enum weight_role role)
{
    return weight_rows[role].kind;
}

bool weight_role_converts(enum weight_role have, enum weight_role want)
{
    if (have == want) return have != WEIGHT_NONE && have != WEIGHT_UNIONS_;
    for (size_t i = 0; i < sizeof weight_conversions / sizeof weight_conversions[0]; i++)
        if (weight_conversions[i].to == want && weight_conversions[i].from == have) return true;
    return false;
}

const char *state_kind_name(enum state_kind kind)
{
    static const char *const names[STATE_COUNT] = {[STATE_NONE] = "none",
#define S(kind) [STATE_##kind] = #kind,
                                                   STATES(S)
#undef S
    };
    return kind < STATE_COUNT ? names[kind] : "none";
}

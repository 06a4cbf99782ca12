#include "format/gguf_value.h"

#include <math.h>

#include "base/bits.h"

static const struct {
    const char *name;
    size_t bytes;
} types[] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

_Static_assert(COUNT_OF(types) == GGUF_TYPE_COUNT, "one row per type");

const char *gguf_type_name(enum gguf_type type)
{
    return types[type].name;
}

size_t gguf_type_bytes(enum gguf_type type)
{
    return types[type].bytes;
}

bool gguf_take(struct gguf_cursor *cursor, uint64_t n, struct span *out)
{
    if (!span_slice(cursor->rest, 0, n, out)) return false;
    cursor->rest = span_of(cursor->rest.data + n, cursor->rest.len - (size_t)n);
    return true;
}

bool gguf_take_u32(struct gguf_cursor *cursor, uint32_t *out)
{
    struct span bytes;
    if (!gguf_take(cursor, 4, &bytes)) return false;
    *out = load_u32le(bytes.data);
    return true;
}

bool gguf_take_u64(struct gguf_cursor *cursor, uint64_t *out)
{
    struct span bytes;
    if (!gguf_take(cursor, 8, &bytes)) return false;
    *out = load_u64le(bytes.data);
    return true;
}

bool gguf_take_string(struct gguf_cursor *cursor, struct span *out)
{
    struct gguf_cursor at = *cursor;
    uint64_t len;
    if (!gguf_take_u64(&at, &len) || !gguf_take(&at, len, out)) return false;
    *cursor = at;
    return true;
}

static const char past_the_end[] = "ends past the end of the file; incomplete download?";

static const char *take_number(struct gguf_cursor *cursor, enum gguf_type type, struct span *out)
{
    if (!gguf_take(cursor, types[type].bytes, out)) return past_the_end;
    if (type == GGUF_BOOL && out->data[0] > 1) return "is a bool of neither 0 nor 1";
    return NULL;
}

static const char *take(struct gguf_cursor *cursor, uint32_t type, uint32_t depth,
                        struct gguf_value *out);

/* Items of one size are passed over at once; bools, strings and arrays are looked at. */
static const char *take_items(struct gguf_cursor *cursor, struct gguf_value *array, uint32_t depth)
{
    enum gguf_type type = array->item_type;
    uint64_t bytes;
    if (types[type].bytes && type != GGUF_BOOL) {
        if (!mul_u64(array->n_items, types[type].bytes, &bytes)) return past_the_end;
        return gguf_take(cursor, bytes, &array->data) ? NULL : past_the_end;
    }
    const uint8_t *start = cursor->rest.data;
    for (uint64_t i = 0; i < array->n_items; i++) {
        struct gguf_value item;
        const char *wrong = take(cursor, type, depth, &item);
        if (wrong) return wrong;
    }
    array->data = span_of(start, (size_t)(cursor->rest.data - start));
    return NULL;
}

static const char *take_array(struct gguf_cursor *cursor, uint32_t depth, struct gguf_value *out)
{
    uint32_t item_type;
    if (depth == GGUF_MAX_NESTING) return "has arrays nested deeper than 8 levels";
    if (!gguf_take_u32(cursor, &item_type) || !gguf_take_u64(cursor, &out->n_items))
        return past_the_end;
    if (item_type >= GGUF_TYPE_COUNT) return "is an array of a type that is not known";
    out->item_type = (enum gguf_type)item_type;
    return take_items(cursor, out, depth + 1);
}

_Static_assert(GGUF_MAX_NESTING == 8, "take_array() says the number");

static const char *take(struct gguf_cursor *cursor, uint32_t type, uint32_t depth,
                        struct gguf_value *out)
{
    if (type >= GGUF_TYPE_COUNT) return "is of a type that is not known";
    *out = (struct gguf_value){.type = (enum gguf_type)type};
    if (type == GGUF_STRING) return gguf_take_string(cursor, &out->data) ? NULL : past_the_end;
    if (type == GGUF_ARRAY) return take_array(cursor, depth, out);
    return take_number(cursor, out->type, &out->data);
}

const char *gguf_take_value(struct gguf_cursor *cursor, uint32_t type, struct gguf_value *out)
{
    return take(cursor, type, 0, out);
}

struct gguf_items gguf_items(const struct gguf_value *value)
{
    if (!value || value->type != GGUF_ARRAY) return (struct gguf_items){.type = GGUF_U8};
    return (struct gguf_items){value->item_type, value->n_items, value->data};
}

bool gguf_items_next(struct gguf_items *items, struct gguf_value *item)
{
    struct gguf_cursor cursor = {.rest = items->rest};
    if (items->n_left == 0 || gguf_take_value(&cursor, items->type, item)) return false;
    items->n_left--;
    items->rest = cursor.rest;
    return true;
}

/* The bits of an integer, and whether they are negative. */
static bool integer(const struct gguf_value *value, uint64_t *bits, bool *negative)
{
    const uint8_t *p = value->data.data;
    *negative = false;
    switch ((int)value->type) {
    case GGUF_U8: *bits = p[0]; return true;
    case GGUF_U16: *bits = load_u16le(p); return true;
    case GGUF_U32: *bits = load_u32le(p); return true;
    case GGUF_U64: *bits = load_u64le(p); return true;
    case GGUF_I8:
        *bits = p[0];
        *negative = p[0] >> 7;
        return true;
    case GGUF_I16:
        *bits = load_u16le(p);
        *negative = *bits >> 15;
        return true;
    case GGUF_I32:
        *bits = load_u32le(p);
        *negative = *bits >> 31;
        return true;
    case GGUF_I64:
        *bits = load_u64le(p);
        *negative = *bits >> 63;
        return true;
    default: return false;
    }
}

bool gguf_u64(const struct gguf_value *value, uint64_t *out)
{
    bool negative;
    return value && integer(value, out, &negative) && !negative;
}

bool gguf_f64(const struct gguf_value *value, double *out)
{
    uint64_t bits;
    if (gguf_u64(value, &bits)) {
        *out = (double)bits;
        return true;
    }
    if (!value || (value->type != GGUF_F32 && value->type != GGUF_F64)) return false;
    if (value->type == GGUF_F32) {
        uint32_t bits32 = load_u32le(value->data.data);
        float f;
        memcpy(&f, &bits32, sizeof f);
        *out = (double)f;
    } else {
        bits = load_u64le(value->data.data);
        memcpy(out, &bits, sizeof *out);
    }
    return isfinite(*out);
}

bool gguf_bool(const struct gguf_value *value, bool *out)
{
    if (!value || value->type != GGUF_BOOL) return false;
    *out = value->data.data[0] != 0;
    return true;
}

bool gguf_string(const struct gguf_value *value, struct span *out)
{
    if (!value || value->type != GGUF_STRING) return false;
    *out = value->data;
    return true;
}

#include "store/weight_index.h"

#include "base/array.h"
#include "format/json_cursor.h"

enum {
    /* Levels that a value may have in the document and in weight_map. */
    FIELD_LEVELS = JSON_MAX_DEPTH - 1,
    ENTRY_LEVELS = JSON_MAX_DEPTH - 2,
    TENSOR_SHOWN = 256,
};

struct reader {
    struct json_cursor at;
    struct text_buffer scratch;
    struct map fields; /* of the document */
    struct map files;  /* name -> place in shards */
    struct weight_index *out;
    struct shards *shards;
    struct arena *arena;
    struct sluice_error *err;
    bool has_weight_map;
    bool unique; /* that no tensor comes twice is looked after */
};

void weight_index_release(struct weight_index *index)
{
    map_release(&index->by_tensor);
    array_release(index);
}

/* The next key of an object and the colon behind it; it lives as long as the text and the arena. */
static enum sluice_status read_key(struct reader *r, struct span *key)
{
    TRY(json_cursor_view(&r->at, &r->scratch, key, r->err));
    if (key->data == r->scratch.data) {
        key->data = (const uint8_t *)arena_copy(r->arena, key->data, key->len);
        if (!key->data) return err_nomem(r->err, SHARDS_INDEX_NAME, key->len);
    }
    return json_cursor_expect(&r->at, ':', r->err);
}

static int shown(struct span name)
{
    return name.len < TENSOR_SHOWN ? (int)name.len : TENSOR_SHOWN;
}

/* The name of a file that was not seen before. */
static enum sluice_status add_file(struct reader *r, struct span tensor, struct span name,
                                   const char **file)
{
    *file = arena_copy(r->arena, name.data, name.len);
    if (!*file) return err_nomem(r->err, SHARDS_INDEX_NAME, name.len);
    if (!shards_is_plain_name(*file))
        return err_set(r->err, SLUICE_E_FORMAT,
                       SHARDS_INDEX_NAME ": tensor '%.*s' is in '%.160s', which is not the "
                                         "name of a *.safetensors file of the folder",
                       tensor.len < 160 ? (int)tensor.len : 160, (const char *)tensor.data, *file);
    uint32_t place = (uint32_t)r->shards->n;
    if (map_put(&r->files, span_of(*file, name.len), place) == MAP_NOMEM)
        return err_nomem(r->err, SHARDS_INDEX_NAME, r->files.cap);
    return shards_add(r->shards, *file, r->arena, r->err);
}

static enum sluice_status read_file(struct reader *r, struct span tensor, const char **file)
{
    if (json_cursor_peek(&r->at) != '"') {
        TRY(json_cursor_skip(&r->at, ENTRY_LEVELS, r->err));
        return err_set(r->err, SLUICE_E_FORMAT,
                       SHARDS_INDEX_NAME ": weight_map entry '%.*s' is no string", shown(tensor),
                       (const char *)tensor.data);
    }
    struct span name;
    TRY(json_cursor_view(&r->at, &r->scratch, &name, r->err));
    const uint32_t *place = map_find(&r->files, name);
    if (!place) return add_file(r, tensor, name, file);
    *file = r->shards->items[*place];
    return SLUICE_OK;
}

static enum sluice_status read_entry(struct reader *r)
{
    struct weight_index_entry entry;
    TRY(read_key(r, &entry.tensor));
    uint32_t place = (uint32_t)r->out->n;
    if (r->unique)
        TRY(json_cursor_add_key(&r->at, &r->out->by_tensor, entry.tensor, place, r->err));
    TRY(read_file(r, entry.tensor, &entry.file));
    if (array_push(r->out, entry)) return SLUICE_OK;
    return err_nomem(r->err, SHARDS_INDEX_NAME, r->out->cap * sizeof entry);
}

static enum sluice_status read_weight_map(struct reader *r)
{
    r->has_weight_map = true;
    if (json_cursor_peek(&r->at) != '{') {
        json_t *value;
        TRY(json_cursor_value(&r->at, FIELD_LEVELS, &value, r->err));
        enum sluice_status status =
            json_expect_object(value, SHARDS_INDEX_NAME, "weight_map", r->err);
        json_decref(value);
        return status;
    }
    TRY(json_cursor_expect(&r->at, '{', r->err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(&r->at, first, '}', &more, r->err));
        if (!more) return SLUICE_OK;
        TRY(read_entry(r));
    }
}

static enum sluice_status read_document(struct reader *r)
{
    TRY(json_cursor_expect(&r->at, '{', r->err));
    for (bool first = true, more;; first = false) {
        TRY(json_cursor_item(&r->at, first, '}', &more, r->err));
        if (!more) return json_cursor_finish(&r->at, r->err);
        struct span key;
        TRY(read_key(r, &key));
        TRY(json_cursor_add_key(&r->at, &r->fields, key, 0, r->err));
        if (span_equal(key, span_str("weight_map")))
            TRY(read_weight_map(r));
        else
            TRY(json_cursor_skip(&r->at, FIELD_LEVELS, r->err));
    }
}

static enum sluice_status no_object(struct span text, struct sluice_error *err)
{
    json_t *root;
    TRY(json_parse(text, SHARDS_INDEX_NAME, &root, err));
    enum sluice_status status = json_expect_object(root, SHARDS_INDEX_NAME, "", err);
    json_decref(root);
    return status;
}

static enum sluice_status read_text(struct reader *r, struct span text)
{
    if (json_cursor_peek(&r->at) != '{') return no_object(text, r->err);
    TRY(read_document(r));
    if (!r->has_weight_map)
        return json_expect_object(NULL, SHARDS_INDEX_NAME, "weight_map", r->err);
    if (r->out->n) return SLUICE_OK;
    return err_set(r->err, SLUICE_E_FORMAT, SHARDS_INDEX_NAME ": weight_map has no tensors");
}

static enum sluice_status parse(struct weight_index *index, struct shards *shards, struct span text,
                                bool unique, struct arena *arena, struct sluice_error *err)
{
    struct reader r = {.at = {.p = text.data,
                              .end = text.data + text.len,
                              .start = text.data,
                              .file = SHARDS_INDEX_NAME,
                              .field = "the text"},
                       .out = index,
                       .shards = shards,
                       .arena = arena,
                       .err = err,
                       .unique = unique};
    enum sluice_status status = read_text(&r, text);
    shards_sort(shards);
    map_release(&r.fields);
    map_release(&r.files);
    text_release(&r.scratch);
    return status;
}

/* Says what is wrong with text first, when a tensor twice counts. */
static enum sluice_status parse_again(struct span text, struct sluice_error *err)
{
    struct weight_index index = {0};
    struct shards shards = {0};
    struct arena arena = {0};
    enum sluice_status status = parse(&index, &shards, text, true, &arena, err);
    weight_index_release(&index);
    shards_release(&shards);
    arena_release(&arena);
    return status;
}

enum sluice_status weight_index_parse(struct weight_index *index, struct shards *shards,
                                      struct span text, struct arena *arena,
                                      struct sluice_error *err)
{
    enum sluice_status status = parse(index, shards, text, false, arena, err);
    if (status == SLUICE_OK || status == SLUICE_E_NOMEM) return status;
    enum sluice_status first = parse_again(text, err);
    return first == SLUICE_OK ? status : first;
}

enum sluice_status weight_index_map(struct weight_index *index, struct span text,
                                    struct sluice_error *err)
{
    map_release(&index->by_tensor);
    if (!map_init(&index->by_tensor, index->n))
        return err_nomem(err, SHARDS_INDEX_NAME, index->n * sizeof *index->by_tensor.slots);
    for (size_t i = 0; i < index->n; i++) {
        enum map_put put = map_put(&index->by_tensor, index->items[i].tensor, (uint32_t)i);
        if (put == MAP_NEW) continue;
        TRY(parse_again(text, err)); /* which knows where it is */
        return err_nomem(err, SHARDS_INDEX_NAME, index->n * sizeof *index->by_tensor.slots);
    }
    return SLUICE_OK;
}

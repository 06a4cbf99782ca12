/* Where a model keeps the template that writes a conversation as text (tokenizer.h). */
#include "io/file.h"
#include "token/tokenizer.h"

enum { MAX_TEMPLATE_BYTES = 16 << 20 };

enum sluice_status chat_template_set(struct sluice_tokenizer *tokenizer, struct span text,
                                     struct sluice_error *err)
{
    char *copy = arena_alloc(&tokenizer->texts, text.len + 1, 1);
    if (!copy) return err_nomem(err, "chat template", text.len);
    if (text.len) memcpy(copy, text.data, text.len);
    tokenizer->chat_template = span_of(copy, text.len);
    return SLUICE_OK;
}

enum sluice_status chat_template_config(struct sluice_tokenizer *tokenizer, const json_t *config,
                                        const char *file, struct sluice_error *err)
{
    const json_t *value = json_object_get(config, "chat_template");
    /* Some models list several by name; the one for plain conversations is called so. */
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0) value = json_object_get(item, "template");
    }
    if (!value || json_is_null(value) || json_is_array(value)) return SLUICE_OK;
    if (!json_is_string(value))
        return err_set(err, SLUICE_E_FORMAT, "%s: chat_template is neither a text nor a list",
                       file);
    return chat_template_set(tokenizer,
                             span_of(json_string_value(value), json_string_length(value)), err);
}

enum sluice_status chat_template_file(struct sluice_tokenizer *tokenizer, const char *path,
                                      struct sluice_error *err)
{
    char *data;
    size_t len;
    if (!file_exists(path)) return SLUICE_OK;
    TRY(file_read(path, MAX_TEMPLATE_BYTES, &data, &len, err));
    enum sluice_status status = chat_template_set(tokenizer, span_of(data, len), err);
    free(data);
    return status;
}

const char *sluice_tokenizer_chat_template(const sluice_tokenizer *tokenizer, size_t *len)
{
    if (len) *len = tokenizer ? tokenizer->chat_template.len : 0;
    return tokenizer ? (const char *)tokenizer->chat_template.data : NULL;
}

/* A program as a user of the library writes it: opens a model, continues a prompt greedily. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

enum { MAX_PROMPT = 64, N_GENERATED = 16 };

static int fail(const char *what, const struct sluice_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    return 1;
}

/* Prints the text of N_GENERATED ids that follow prompt. */
static int generate(sluice_engine *engine, sluice_session *session, const char *prompt)
{
    struct sluice_error err = {0};
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    const sluice_tokenizer *tokenizer = sluice_engine_tokenizer(engine);
    float *logits = malloc(info.vocab_size * sizeof *logits);
    int32_t ids[MAX_PROMPT];
    size_t n;
    if (!logits || !tokenizer) return 1;
    if (sluice_tokenize(tokenizer, prompt, strlen(prompt), 0, ids, MAX_PROMPT, &n, &err))
        return fail("tokenize", &err);
    struct sluice_sampler_options options;
    sluice_sampler_options_default(&options);
    options.temperature = 0;
    sluice_sampler *sampler;
    if (sluice_sampler_open(&sampler, info.vocab_size, &options, &err))
        return fail("sampler", &err);

    struct sluice_text_stream stream = {0};
    for (int i = 0; i < N_GENERATED; i++) {
        struct sluice_segment segment = {.session = session, .ids = ids, .n_ids = n, .n_logits = 1};
        if (sluice_eval(engine, &segment, 1, NULL, logits, &err)) return fail("eval", &err);
        ids[0] = sluice_sampler_draw(sampler, logits);
        n = 1;
        sluice_sampler_accept(sampler, ids[0]);
        char text[256];
        size_t len;
        if (sluice_text_stream_push(&stream, tokenizer, ids[0], text, sizeof text, &len, &err))
            return fail("text", &err);
        fwrite(text, 1, len, stdout);
    }
    printf("\n");
    sluice_sampler_close(&sampler);
    free(logits);
    return 0;
}

int main(int argc, char **argv)
{
    struct sluice_error err = {0};
    if (argc != 3) return 2;
    if (strcmp(sluice_version(), SLUICE_VERSION_STRING) != 0) return 3;
    sluice_engine *engine;
    if (sluice_engine_open(&engine, argv[1], NULL, &err)) return fail("open", &err);
    sluice_session *session;
    if (sluice_session_open(&session, engine, NULL, &err)) return fail("session", &err);
    int status = generate(engine, session, argv[2]);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return status;
}

/* Continues a prompt: story MODEL PROMPT. Build: cc -o story story.c $(pkg-config --cflags --libs
 * sluice) */
#include <sluice/sluice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct sluice_error err;
    sluice_engine *engine;
    sluice_session *session;
    sluice_sampler *sampler;
    struct sluice_engine_info info = {.size = sizeof info};
    struct sluice_text_stream stream = {0};
    int32_t ids[512];
    size_t n, len;
    char text[1024];
    if (argc != 3) return 2;
    if (sluice_engine_open(&engine, argv[1], NULL, &err)) goto fail;
    if (sluice_session_open(&session, engine, NULL, &err)) goto fail;
    if (sluice_engine_tokenizer_status(engine, &err)) goto fail;
    const sluice_tokenizer *tokenizer = sluice_engine_tokenizer(engine);
    sluice_engine_get_info(engine, &info);
    if (sluice_sampler_open(&sampler, info.vocab_size, NULL, &err)) goto fail;
    float *logits = calloc(info.vocab_size, sizeof *logits);
    if (!logits) return 1;
    if (sluice_tokenize(tokenizer, argv[2], strlen(argv[2]), 0, ids, 512, &n, &err)) goto fail;
    if (n > 512) return 1;
    for (int i = 0; i < 100; i++, n = 1) {
        struct sluice_segment next = {.session = session, .ids = ids, .n_ids = n, .n_logits = 1};
        if (sluice_eval(engine, &next, 1, NULL, logits, &err)) goto fail;
        ids[0] = sluice_sampler_draw(sampler, logits);
        if (sluice_engine_is_eos(engine, ids[0])) break;
        sluice_sampler_accept(sampler, ids[0]);
        if (sluice_text_stream_push(&stream, tokenizer, ids[0], text, sizeof text, &len, &err))
            goto fail;
        fwrite(text, 1, len, stdout);
    }
    puts("");
    free(logits);
    sluice_sampler_close(&sampler);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return 0;
fail:
    fprintf(stderr, "%s\n", err.message);
    return 1;
}

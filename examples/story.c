/* Continues a prompt: story MODEL PROMPT. cc -o story story.c $(pkg-config --cflags --libs sluice) */
#include <sluice/sluice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sluice_error err;
#define TRY(call) do if (call) return fprintf(stderr, "%s\n", err.message), 1; while (0)

int main(int argc, char **argv)
{
    sluice_engine *engine;
    sluice_session *session;
    sluice_sampler *sampler;
    if (argc != 3) return 2;
    TRY(sluice_engine_open(&engine, argv[1], NULL, &err));
    TRY(sluice_session_open(&session, engine, NULL, &err));
    TRY(sluice_engine_tokenizer_status(engine, &err));
    const sluice_tokenizer *tokenizer = sluice_engine_tokenizer(engine);
    struct sluice_engine_info info = {.size = sizeof info};
    sluice_engine_get_info(engine, &info);
    TRY(sluice_sampler_open(&sampler, info.vocab_size, NULL, &err));
    float *logits = calloc(info.vocab_size, sizeof *logits);
    int32_t ids[512];
    size_t n, len;
    TRY(sluice_tokenize(tokenizer, argv[2], strlen(argv[2]), 0, ids, 512, &n, &err));
    if (!logits || n > 512) return 1;
    struct sluice_text_stream stream = {0};
    for (int i = 0; i < 100; i++, n = 1) {
        struct sluice_segment next = {.session = session, .ids = ids, .n_ids = n, .n_logits = 1};
        char text[1024];
        TRY(sluice_eval(engine, &next, 1, NULL, logits, &err));
        ids[0] = sluice_sampler_draw(sampler, logits);
        if (sluice_engine_is_eos(engine, ids[0])) break;
        sluice_sampler_accept(sampler, ids[0]);
        TRY(sluice_text_stream_push(&stream, tokenizer, ids[0], text, sizeof text, &len, &err));
        fwrite(text, 1, len, stdout);
    }
    puts("");
    free(logits);
    sluice_sampler_close(&sampler);
    sluice_session_close(&session);
    sluice_engine_close(&engine);
    return 0;
}

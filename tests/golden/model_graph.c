/* The graph of a real model, byte for byte: usage: model_graph [--update] MODEL FILE. */
#include "golden.h"
#include "model/model.h"

static enum sluice_status dump_model(const char *path, char **text, struct sluice_error *err)
{
    struct checkpoint cp;
    struct model m;
    struct model_options options = {0};
    TRY(checkpoint_open(&cp, path, err));
    enum sluice_status status = model_init(&m, &cp, &options, err);
    if (status == SLUICE_OK) {
        size_t need = graph_dump(&m.graph, NULL, 0);
        *text = calloc(need, 1);
        if (!*text) abort();
        graph_dump(&m.graph, *text, need);
        model_release(&m);
    }
    checkpoint_release(&cp);
    return status;
}

int main(int argc, char **argv)
{
    bool update = argc == 4 && strcmp(argv[1], "--update") == 0;
    if (argc != 3 && !update) return 2;
    struct sluice_error err = {0};
    char *text = NULL;
    printf("1..1\n");
    bool ok = dump_model(argv[argc - 2], &text, &err) == SLUICE_OK;
    if (ok)
        ok = golden_check(argv[argc - 1], text, update);
    else
        printf("# %s\n", err.message);
    printf("%sok 1 - the graph of %s is as committed\n", ok ? "" : "not ", argv[argc - 2]);
    free(text);
    return !ok;
}

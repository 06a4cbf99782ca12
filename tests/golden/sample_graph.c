/* The text form of the sample graph, byte for byte: usage: sample_graph [--update] FILE. */
#include "sample_graph.h"
#include "golden.h"

static int report(int n, bool ok, const char *what)
{
    printf("%sok %d - %s\n", ok ? "" : "not ", n, what);
    return ok ? 0 : 1;
}

/* The length that graph_dump asks for holds for every smaller room, and nothing is overrun. */
static bool dumps_into_any_room(const struct graph *g, const char *text, size_t need)
{
    for (size_t cap = 0; cap <= need + 3; cap = cap < 40 || cap + 9 > need ? cap + 1 : cap + 97) {
        char *out = malloc(cap + 1);
        if (!out) abort();
        memset(out, '#', cap + 1);
        bool ok = graph_dump(g, out, cap) == need && out[cap] == '#';
        size_t put = cap < need ? cap : need;
        if (put) ok = ok && strlen(out) == put - 1 && memcmp(out, text, put - 1) == 0;
        free(out);
        if (!ok) return false;
    }
    return true;
}

/* A graph in the middle of a mistake can still be looked at. */
static bool dumps_broken_ids(struct graph *g)
{
    uint32_t was = g->nodes.items[2].u.rms_norm.x.id;
    char text[20000];
    g->nodes.items[2].u.rms_norm = (struct op_rms_norm){.dim = 1};
    graph_dump(g, text, sizeof text);
    g->nodes.items[2].u.rms_norm.x.id = was;
    return strstr(text, "rms_norm %? none(0 x 0) dim=1 eps=0 -> %?\n") != NULL;
}

static bool dumps_an_empty_graph(void)
{
    struct graph g;
    graph_init(&g, 1);
    char text[] = "###";
    bool ok = graph_dump(&g, text, sizeof text) == 1 && text[0] == '\0' && text[1] == '#';
    graph_release(&g);
    return ok;
}

int main(int argc, char **argv)
{
    bool update = argc == 3 && strcmp(argv[1], "--update") == 0;
    if (argc != 2 && !update) return 2;
    const char *path = argv[argc - 1];
    struct sluice_error err = {0};
    struct graph g;
    printf("1..5\n");
    graph_init(&g, 1);
    sample_graph(&g, &sample_distinct);
    int bad = report(1, graph_finish(&g, &err) == SLUICE_OK, "the graph is valid");
    size_t need = graph_dump(&g, NULL, 0);
    char *text = calloc(need, 1);
    if (!text) abort();
    graph_dump(&g, text, need);
    bad |= report(2, golden_check(path, text, update), "its text is as committed");
    bad |= report(3, dumps_into_any_room(&g, text, need), "any room is enough");
    bad |= report(4, dumps_broken_ids(&g), "broken ids are shown");
    bad |= report(5, dumps_an_empty_graph(), "no ops are no text");
    free(text);
    graph_release(&g);
    return bad;
}

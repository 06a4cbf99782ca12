/* Runs all of it and says how each op did: one TAP line an op and kind of input. */
#include <math.h>
#include <stdio.h>

#include "opcheck.h"

enum { SHOWN = 4 };

/* Row OP_COUNT is for what is no op's fault. */
static struct tally {
    uint32_t runs, bad;
    double worst;
} tallies[OP_COUNT + 1];

static void count(const struct node *node, const char *where, const struct verdict *v)
{
    struct tally *t = &tallies[node ? node->op : OP_COUNT];
    t->runs++;
    t->worst = fmax(t->worst, v->worst);
    if (!v->text[0]) return;
    const char *name = node ? op_info(node->op)->name : "setting up";
    if (t->bad++ < SHOWN) printf("# %s: %s: %s\n", name, where, v->text);
}

/* Ops of other families than the recorded model's. */
static bool is_foreign(uint32_t op)
{
    switch (op) {
    case OP_KIND_guess_by_sigmoid:
    case OP_KIND_affine:
    case OP_KIND_sink_attention:
    case OP_KIND_split_mla_q:
    case OP_KIND_split_latent:
    case OP_KIND_absorb:
    case OP_KIND_latent_append:
    case OP_KIND_latent_attention:
    case OP_KIND_expand:
    case OP_KIND_split_qkvz:
    case OP_KIND_split_ba:
    case OP_KIND_sigmoid_router:
    case OP_KIND_combine_ungated:
    case OP_KIND_layer_add: return true;
    default: return false;
    }
}

static int report(int *line, const char *kind, bool recorded)
{
    int failed = tallies[OP_COUNT].bad != 0;
    for (uint32_t op = 0; op < OP_COUNT; op++) {
        const struct tally *t = &tallies[op];
        bool absent = recorded && is_foreign(op);
        bool ok = (t->runs > 0) != absent && t->bad == 0;
        if (absent && ok) {
            printf("ok %d - %s, %s # SKIP the model has none\n", ++*line, op_info(op)->name, kind);
            continue;
        }
        printf("%sok %d - %s, %s: %u of %u runs right, worst %.2g\n", ok ? "" : "not ", ++*line,
               op_info(op)->name, kind, t->runs - t->bad, t->runs, t->worst);
        failed |= !ok;
    }
    memset(tallies, 0, sizeof tallies);
    fflush(stdout);
    return failed;
}

int main(int argc, char **argv)
{
    if (argc != 2) return 2;
    int line = 0, failed = 0;
    printf("1..%d\n", 3 * OP_COUNT + 1);
    uint32_t missed = check_the_checker();
    printf("%sok %d - planted faults are found\n", missed ? "not " : "", ++line);
    check_random_worlds(count);
    failed |= report(&line, "random", false);
    check_recorded(argv[1], false, count);
    failed |= report(&line, "recorded, exact", true);
    check_recorded(argv[1], true, count);
    failed |= report(&line, "recorded, fast", true);
    return missed || failed;
}

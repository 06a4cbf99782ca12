/* The command line: values, defaults, ranges, and one sentence about each mistake. */
#include <math.h>
#include <stdlib.h>

#include "args.h"
#include "check.h"
#include "nearest.h"

enum { MAX_WORDS = 12 };

/*
 * Parses the words of a line, each ended by one blank or the end; NULL: no word at all. The values
 * point into a buffer that the next call overwrites.
 */
static bool parse(struct args *args, struct buffer *message, const char *line)
{
    static char copy[300];
    char *argv[MAX_WORDS + 2] = {copy};
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line ? line : "");
    for (char *word = line ? copy : NULL; word && argc <= MAX_WORDS; argc++) {
        argv[argc] = word;
        word = strchr(word, ' ');
        if (word) *word++ = '\0';
    }
    return args_parse(args, argc, argv, message);
}

/* A line that must be refused with a message that has the word. */
static void refused(const char *word, const char *line)
{
    struct args args;
    struct buffer message = {0};
    CHECK(!parse(&args, &message, line), "'%s' was expected", word);
    CHECK(message.data && strstr(message.data, word), "'%s' lacks '%s'",
          message.data ? message.data : "", word);
    CHECK(!message.data || !strchr(message.data, '\n'));
    args_release(&args);
    buffer_release(&message);
}

static void test_values_reach_their_fields(void)
{
    struct args args;
    struct buffer message = {0};
    REQUIRE(parse(&args, &message,
                  "run --prompt --odd folder -n 7 --top-p=0.5 --stop a --stop=b=c --ignore-eos"),
            "%s", message.data);
    CHECK(args.command == COMMAND_run);
    CHECK(strcmp(args.model, "folder") == 0);
    CHECK(strcmp(args.prompt, "--odd") == 0, "a value may begin with dashes");
    CHECK(args.n_tokens == 7 && ARG_GIVEN(&args, n_tokens));
    CHECK(args.top_p == 0.5);
    CHECK(args.stop.n == 2 && strcmp(args.stop.items[1], "b=c") == 0);
    CHECK(args.ignore_eos && !args.print_ids && !args.json);
    CHECK(!ARG_GIVEN(&args, ctx) && args.ctx == 0);
    args_release(&args);
    buffer_release(&message);
}

static void test_a_value_in_the_word_of_a_short_option(void)
{
    struct args args;
    struct buffer message = {0};
    REQUIRE(parse(&args, &message, "run --prompt=a=b -n=7"), "%s", message.data);
    CHECK(args.n_tokens == 7 && strcmp(args.prompt, "a=b") == 0);
    args_release(&args);
    buffer_release(&message);
}

static void test_bias_precision_and_seed(void)
{
    struct args args;
    struct buffer message = {0};
    REQUIRE(parse(&args, &message,
                  "run --ids - --logit-bias 42=-1.5 --logit-bias 0=-inf --precision exact --seed "
                  "18446744073709551615"),
            "%s", message.data);
    CHECK(args.logit_bias.n == 2);
    CHECK(args.logit_bias.items[0].id == 42 && args.logit_bias.items[0].bias == -1.5f);
    CHECK(args.logit_bias.items[1].id == 0 && isinf(args.logit_bias.items[1].bias));
    CHECK(args.precision == SLUICE_EXACT);
    CHECK(args.seed == UINT64_MAX);
    CHECK(args.model == NULL);
    args_release(&args);
    buffer_release(&message);
}

static void test_words_after_two_dashes_are_no_options(void)
{
    struct args args;
    struct buffer message = {0};
    REQUIRE(parse(&args, &message, "inspect --json -- --model"));
    CHECK(args.json && strcmp(args.model, "--model") == 0);
    args_release(&args);
    buffer_release(&message);
}

static void test_defaults_are_those_of_the_sampler(void)
{
    struct args args;
    struct buffer message = {0};
    struct sluice_sampler_options o;
    sluice_sampler_options_default(&o);
    REQUIRE(parse(&args, &message, "run --prompt="));
    CHECK(*args.prompt == '\0' && args.prompt);
    CHECK((float)args.temperature == o.temperature);
    CHECK(args.top_k == o.top_k);
    CHECK((float)args.top_p == o.top_p);
    CHECK((float)args.min_p == o.min_p);
    CHECK((float)args.repeat_penalty == o.repeat_penalty);
    CHECK((float)args.presence_penalty == o.presence_penalty);
    CHECK((float)args.frequency_penalty == o.frequency_penalty);
    CHECK(args.seed == o.seed);
    args_release(&args);
    buffer_release(&message);
}

static void test_commands_are_checked(void)
{
    refused("no command", NULL);
    refused("no command", "");
    refused("did you mean 'run'?", "rum");
    refused("did you mean 'perplexity'?", "perplexty --ids x");
    refused("sluice help", "transmogrify");
}

static void test_options_are_checked(void)
{
    refused("did you mean '--prompt'?", "run --promt x");
    refused("did you mean '-n'?", "run --n 5");
    refused("lists them", "run --transmogrify");
    refused("as in 800M or 12G", "run --ram 1X");
    refused("does not apply to 'run', only to 'bench'", "run --stream");
    refused("'run' has no option '-x'", "run -x");
    refused("does not apply to 'run', only to 'perplexity'", "run --window=5");
    refused("'perplexity', 'tokenize'", "inspect --text x");
    refused("'--prompt' needs a value", "run --prompt");
    refused("'--json' takes no value", "inspect --json=1");
    refused("one MODEL", "inspect a b");
    refused("MODEL is empty", "inspect ");
}

static void test_values_are_checked(void)
{
    refused("[0, 4294967295]", "run -n -1");
    refused("not '5x'", "run -n 5x");
    refused("not ''", "run -n ");
    refused("not '4294967296'", "run -n 4294967296");
    refused("--seed", "run --seed 18446744073709551616");
    refused("[1, 1024]", "run --threads 0");
    refused("[2, ", "perplexity --window 1");
    refused("[0, inf)", "run --temperature -0.1");
    refused("[0, inf)", "run --temperature inf");
    refused("[0, inf)", "run --temperature nan");
    refused("(0, 1]", "run --top-p 0");
    refused("[0, 1)", "run --min-p 1");
    refused("(0, inf)", "run --repeat-penalty 0");
    refused("a number", "run --presence-penalty x");
    refused("'exact' or 'fast'", "inspect --precision half");
    refused("not empty", "run --stop ");
    refused("42=-1.5", "run --logit-bias 5");
    refused("42=-1.5", "run --logit-bias -5=1");
    refused("42=-1.5", "run --logit-bias 5=x");
    refused("42=-1.5", "run --logit-bias 2147483648=1");
}

static void test_combinations_are_checked(void)
{
    refused("needs one of '--prompt', '--prompt-file' and '--ids'", "run");
    refused("only one of", "run --prompt=a --ids=b");
    refused("needs '--ids'", "logits --out=a");
    refused("needs '--out'", "logits --ids=a");
    refused("'--ids' and '--text'", "perplexity");
    refused("only one of", "perplexity --ids=a --text=b");
    refused("needs '--out'", "trace --prompt=a");
    refused("needs one of '--prompt'", "trace --out=a");
    refused("needs the trace", "cache-sim");
    refused("'--route' of 'bench' needs '--stream'", "bench --route uniform");
    refused("several budgets", "bench --ram 1G --slots 5");
    refused("whole number in [1, 4294967294]", "cache-sim t --capacity x");
}

static void test_pack_takes_model_and_folder(void)
{
    struct args args;
    struct buffer message = {0};
    REQUIRE(parse(&args, &message, "pack from --verify to --shard-size 2G"), "%s", message.data);
    CHECK(strcmp(args.model, "from") == 0 && strcmp(args.folder, "to") == 0 && args.verify);
    CHECK(numbers_last(&args.shard_size) == 2ull << 30);
    args_release(&args);
    buffer_release(&message);
    refused("needs the model and the folder", "pack");
    refused("needs the model and the folder", "pack from");
    refused("empty", "pack from ");
    refused("'c'", "pack a b c");
    refused("does not apply to 'tokenize', only to 'run'", "tokenize --verify");
    refused("does not apply to 'pack'", "pack a b --no-verify");
}

static void test_numbers_may_be_repeated(void)
{
    struct args args;
    struct buffer message = {0};
    REQUIRE(parse(&args, &message, "bench --stream --slots 5 --ram 1.5K --slots=7"), "%s",
            message.data);
    CHECK(args.slots.n == 2 && args.slots.items[0] == 5 && args.slots.items[1] == 7);
    CHECK(args.ram.n == 1 && args.ram.items[0] == 1536);
    CHECK(numbers_last(&args.slots) == 7 && numbers_last(&args.capacity) == 0);
    args_release(&args);
    buffer_release(&message);
}

static void test_help_needs_nothing_else(void)
{
    struct args args;
    struct buffer message = {0};
    CHECK(parse(&args, &message, "run --help --nonsense"));
    CHECK(args.help && args.command == COMMAND_run);
    args_release(&args);
    CHECK(parse(&args, &message, "logits -h"));
    CHECK(args.help);
    args_release(&args);
    buffer_release(&message);
}

static void test_help_lists_what_applies(void)
{
    struct buffer text = {0};
    help_command(COMMAND_perplexity, &text);
    CHECK(strstr(text.data, "--window N"));
    CHECK(strstr(text.data, "(default 1024)"));
    CHECK(!strstr(text.data, "--prompt"));
    text.len = 0;
    help_overview(&text);
    for (int c = 0; c < N_COMMANDS; c++) {
        struct buffer one = {0};
        help_command((enum command)c, &one);
        CHECK(strstr(one.data, "--help"));
        buffer_release(&one);
    }
    CHECK(strstr(text.data, "detokenize"));
    buffer_release(&text);
}

static void test_nearest_word(void)
{
    const char *const words[] = {"--prompt", "--prompt-file", "-n", "--top-k", "--top-p"};
    CHECK(strcmp(nearest("--propmt", 8, words, 5), "--prompt") == 0, "neighbours swapped");
    CHECK(strcmp(nearest("--topk", 6, words, 5), "--top-k") == 0);
    CHECK(nearest("xyz", 3, words, 5) == NULL);
    CHECK(nearest("", 0, words, 5) == NULL);
    char huge[5000];
    memset(huge, 'a', sizeof huge);
    CHECK(nearest(huge, sizeof huge, words, 5) == NULL);
}

#define CASES(C)                                                                                   \
    C(values_reach_their_fields)                                                                   \
    C(a_value_in_the_word_of_a_short_option)                                                       \
    C(bias_precision_and_seed)                                                                     \
    C(words_after_two_dashes_are_no_options)                                                       \
    C(defaults_are_those_of_the_sampler)                                                           \
    C(commands_are_checked)                                                                        \
    C(options_are_checked)                                                                         \
    C(values_are_checked)                                                                          \
    C(combinations_are_checked)                                                                    \
    C(pack_takes_model_and_folder)                                                                 \
    C(numbers_may_be_repeated)                                                                     \
    C(help_needs_nothing_else)                                                                     \
    C(help_lists_what_applies)                                                                     \
    C(nearest_word)
CHECK_MAIN(CASES)

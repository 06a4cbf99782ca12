"""The command line: messages, exit codes, and the manual page."""
import math
import os
import re

import harness

MODEL = harness.STORYTELLER
TINY = harness.REFERENCES / "qwen3_5_moe"  # has no tokenizer
COMMANDS = ("run", "logits", "perplexity", "tokenize", "detokenize", "inspect", "synth", "pack",
            "bench", "trace", "cache-sim")
PROMPT = "Once upon a time there was"
GREEDY = ("--temperature", 0)


def expect(complaints, result, code, *words):
    """One line on standard error that begins with the program's name and has the words."""
    if result.code != code:
        complaints.append(f"exit {result.code}, not {code}: {result!r}")
    lines = result.err.splitlines()
    if len(lines) != 1 or not lines[0].startswith("sluice: ") or lines[0].endswith("."):
        complaints.append(f"not one sentence: {result!r}")
    for word in words:
        if word not in result.err:
            complaints.append(f"lacks '{word}': {result.err}")


# Usage

USAGE_ERRORS = [
    ((), "no command"),
    (("rum",), "did you mean 'run'?"),
    (("--verson",), "did you mean '--version'?"),
    (("help", "tokenise"), "did you mean 'tokenize'?"),
    (("help", "run", "pack"), "one COMMAND, but got 'run' and 'pack'"),
    (("run", "--promt", "x"), "did you mean '--prompt'?"),
    (("run", "--prompt"), "needs a value"),
    (("run", "--prompt", "x", "-n", "many"), "whole number in [0, 4294967295], not 'many'"),
    (("run", "--prompt", "x", "-n", "-1"), "not '-1'"),
    (("run", "--prompt", "x", "--temperature", "-1"), "[0, inf)"),
    (("run", "--prompt", "x", "--top-p", "0"), "(0, 1]"),
    (("run", "--prompt", "x", "--presence-penalty", "1e39"), "not '1e39'"),
    (("run", "--prompt", "x", "--precision", "half"), "'exact' or 'fast'"),
    (("run", "--prompt", "x", "--logit-bias", "x"), "42=-1.5"),
    (("run", "--prompt", "x", "--window", "9"), "only to 'perplexity'"),
    (("run", "--prompt", "x", "--json=yes"), "takes no value"),
    (("run", "--prompt", "x", "a", "b"), "one MODEL"),
    (("run",), "needs one of '--prompt', '--prompt-file' and '--ids'"),
    (("run", "--prompt", "x", "--ids", "y"), "only one of"),
    (("logits", "--ids", "x"), "needs '--out'"),
    (("logits", "--out", "x"), "needs '--ids'"),
    (("perplexity",), "'--ids' and '--text'"),
    (("perplexity", "--ids", "x", "--window", "1"), "[2, "),
    # Options that other versions have are not silently taken.
    (("run", "--prompt", "x", "--warmth", "1"), "no option '--warmth'"),
    (("run", "--prompt", "x", "--prefetch", "all"), "off|last|router|auto"),
    (("run", "--prompt", "x", "--mmap-advice", "dontneed"), "normal|random|willneed"),
    (("synth", "x", "--verify"), "option '--verify' does not apply to 'synth'"),
    (("run", "--prompt", "x", "--verify", "--no-verify"), "only one of '--verify' and '--no-verify'"),
]


def check_usage(tap, sluice):
    with tap.case("wrong usage is one sentence and exit 2") as complaints:
        for args, word in USAGE_ERRORS:
            result = sluice.run(*args)
            expect(complaints, result, 2, word)
            if result.out:
                complaints.append(f"{args}: prints {result.out!r}")


def parse_help(text):
    """{option: (argument, default)} of the help of a command."""
    options = {}
    for name, argument, line in re.findall(r"^  (-\S+) ?(.*)\n {8}(.*)$", text, re.M):
        default = re.search(r"\(default (.*)\)$", line)
        options[name] = (argument, default and default[1])
    return options


def check_help(tap, sluice):
    with tap.case("help and version") as complaints:
        overview = sluice.good("help").text
        if sluice.good("--help").text != overview or sluice.good("-h").text != overview:
            complaints.append("sluice help, --help and -h differ")
        if not re.fullmatch(r"sluice \d+\.\d+\.\d+\n", sluice.good("--version").text):
            complaints.append("--version")
        for command in COMMANDS:
            if command not in overview:
                complaints.append(f"the overview lacks {command}")
            text = sluice.good("help", command).text
            if sluice.good(command, "--help").text != text:
                complaints.append(f"help {command} and {command} --help differ")
            options = parse_help(text)
            if not text.startswith(f"usage: sluice {command} ") or "--help" not in options:
                complaints.append(text)


def check_manual(tap, sluice):
    with tap.case("the manual page has exactly the options of the program") as complaints:
        page = (harness.ROOT / "docs" / "sluice.1").read_text().replace("\\-", "-")
        described = {}
        section = page[page.index(".SH OPTIONS"):page.index(".SH JSON")]
        for block in section.split(".TP\n")[1:]:
            head, body = block.split("\n", 1)
            name, argument = re.fullmatch(r'\.BI? (-\S+)(?: " (.*)")?', head).groups()
            default = re.search(r"\(default (\S+)\)", body)
            described[name] = (argument or "", default and default[1])
        options = {}
        for command in COMMANDS:
            options.update(parse_help(sluice.good("help", command).text))
        for name in sorted({*options, *described}):
            if options.get(name) != described.get(name):
                complaints.append(f"{name}: {options.get(name)} in the program, "
                                  f"{described.get(name)} in the page")
        for command in COMMANDS:
            if f".B {command}\n" not in page or f"\\fBsluice {command}\\fR" not in page:
                complaints.append(f"{command} is not described")
        version = sluice.good("--version").text.strip()
        if f'"{version}"' not in page:
            complaints.append(f"the page is not of {version}")


# Text

def check_run(tap, sluice):
    with tap.case("run: text, ids and JSON agree") as complaints:
        common = ("run", MODEL, "--prompt", PROMPT, "-n", 20, "--seed", 3)
        text = sluice.good(*common).out
        ids = sluice.good(*common, "--print-ids").text
        whole = sluice.good(*common, "--json").json
        if whole["text"].encode() != text or not text:
            complaints.append(f"{whole['text']!r} is not {text!r}")
        if ids != " ".join(map(str, whole["ids"])) + "\n":
            complaints.append(f"{whole['ids']} are not {ids!r}")
        if whole["finish_reason"] not in ("length", "stop"):
            complaints.append(whole["finish_reason"])
        stats = whole["stats"]
        if stats["generated_tokens"] != len(whole["ids"]) or stats["prompt_tokens"] != 7:
            complaints.append(stats)
        for key in ("prompt_ms", "decode_ms", "prompt_tokens_per_second",
                    "decode_tokens_per_second"):
            if not stats[key] > 0:
                complaints.append(f"{key}: {stats[key]}")
        if sluice.good(*common).out != text:
            complaints.append("the same seed gives another text")
        if sluice.good("run", MODEL, "--prompt", PROMPT, "-n", 20, "--seed", 4).out == text:
            complaints.append("another seed gives the same text")
    with tap.case("run: prompts from a file, from standard input and as ids") as complaints:
        with harness.temporary_folder() as folder:
            (folder / "prompt.txt").write_text(PROMPT)
            common = ("run", MODEL, *GREEDY, "-n", 8)
            want = sluice.good(*common, "--prompt", PROMPT).out
            ids = sluice.good("tokenize", MODEL, stdin=PROMPT.encode()).out
            for got in (sluice.good(*common, "--prompt-file", folder / "prompt.txt"),
                        sluice.good(*common, "--prompt-file", "-", stdin=PROMPT.encode()),
                        sluice.good(*common, "--ids", "-", stdin=ids)):
                if got.out != want:
                    complaints.append(f"{got.out!r} is not {want!r}")
    with tap.case("run: -n 0 prints nothing") as complaints:
        got = sluice.good("run", MODEL, "--prompt", PROMPT, "-n", 0)
        whole = sluice.good("run", MODEL, "--prompt", PROMPT, "-n", 0, "--json").json
        if got.out or whole["ids"] or whole["finish_reason"] != "length":
            complaints.append(f"{got!r} {whole}")
    with tap.case("run: --stats goes to standard error") as complaints:
        got = sluice.run("run", MODEL, "--prompt", PROMPT, *GREEDY, "-n", 5, "--stats")
        plain = sluice.good("run", MODEL, "--prompt", PROMPT, *GREEDY, "-n", 5)
        if got.code or got.out != plain.out or "generated: 5 tokens" not in got.err:
            complaints.append(got)


def check_defaults(tap, sluice):
    with tap.case("without MODEL the storyteller is used") as complaints:
        common = ("--prompt", PROMPT, *GREEDY, "-n", 5)
        if sluice.good("run", *common).out != sluice.good("run", MODEL, *common).out:
            complaints.append("run")
        if sluice.good("tokenize", stdin=b"sea").out != sluice.good("tokenize", MODEL,
                                                                    stdin=b"sea").out:
            complaints.append("tokenize")
        if not os.path.samefile(sluice.good("inspect", "--json").json["path"], MODEL):
            complaints.append("inspect")


def check_stop(tap, sluice):
    common = ("run", MODEL, "--prompt", PROMPT, *GREEDY, "-n", 30)
    text = sluice.good(*common).text
    with tap.case("a stop text ends the output before it") as complaints:
        for begin, end in ((9, 12), (0, 4), (20, 21), (5, 17)):
            stop = text[begin:end]
            want = text[:text.index(stop)]
            if sluice.good(*common, "--stop", "never seen", "--stop", stop).text != want:
                complaints.append(f"{stop!r}: not {want!r}")
            whole = sluice.good(*common, "--stop", stop, "--json").json
            if whole["text"] != want or whole["finish_reason"] != "stop":
                complaints.append(f"{stop!r}: {whole}")
        if sluice.good(*common, "--stop", text[-3:] + "never").text != text:
            complaints.append("what is held back gets lost at the end")
    with tap.case("an end-of-sequence token ends the text, unless ignored") as complaints:
        bias = ("--logit-bias", "2=1000")
        whole = sluice.good(*common, *bias, "--json").json
        if (whole["ids"], whole["text"], whole["finish_reason"]) != ([2], "", "stop"):
            complaints.append(whole)
        whole = sluice.good(*common, *bias, "--json", "--ignore-eos", "-n", 4).json
        if (whole["ids"], whole["text"], whole["finish_reason"]) != ([2] * 4, "", "length"):
            complaints.append(whole)
        banned = sluice.good(*common, *(f"--logit-bias={i}=-inf" for i in (261, 657)), "--json").json
        if {261, 657} & set(banned["ids"]):
            complaints.append(f"banned ids appear: {banned['ids']}")


def check_context(tap, sluice):
    with tap.case("the end of the context is said") as complaints:
        common = ("run", MODEL, "--prompt", PROMPT, *GREEDY, "--ignore-eos", "--ctx", 16)
        got = sluice.run(*common)
        expect(complaints, got, 0, "context", "16", "--ctx")
        whole = sluice.run(*common, "--json").json
        # The last token is drawn from the last place and needs none itself.
        if whole["finish_reason"] != "context" or len(whole["ids"]) != 16 - 7 + 1:
            complaints.append(whole)
        if got.out.decode() != whole["text"]:
            complaints.append(got)
        expect(complaints, sluice.run("run", MODEL, "--prompt", PROMPT, "--ctx", 6), 1,
               "7 tokens", "holds 6", "--ctx 7")
        expect(complaints, sluice.run("logits", MODEL, "--ids", "-", "--out", "/dev/null", "--ctx",
                                      2, stdin=b"1 2 3"), 1, "3 ids", "2 tokens")


def check_round_trip(tap, sluice):
    texts = ["", "a", "Hello, world!\n\n  two  blanks\ttab", "caf\u00e9 \u20ac \U0001f600 \u65e5\u672c\u8a9e",
             "<|im_start|>user\nHello<|im_end|>\n", "x" * 3000, "\r\n\x00\x7f"]
    with tap.case("detokenize(tokenize(x)) is x") as complaints:
        for text in texts:
            data = text.encode()
            ids = sluice.good("tokenize", MODEL, stdin=data)
            if ids.out.count(b"\n") != 1 or not re.fullmatch(rb"[0-9 ]*\n", ids.out):
                complaints.append(f"{text!r}: {ids.out!r}")
            listed = sluice.good("tokenize", MODEL, "--json", stdin=data).json["ids"]
            if listed != [int(w) for w in ids.out.split()]:
                complaints.append(f"{text!r}: --json has {listed}")
            back = sluice.good("detokenize", MODEL, stdin=ids.out)
            if back.out != data:
                complaints.append(f"{text!r} becomes {back.out!r}")
            if sluice.good("detokenize", MODEL, "--json", stdin=ids.out).json["text"] != text:
                complaints.append(f"{text!r}: --json")
        half = sluice.good("tokenize", MODEL, stdin="\U0001f600".encode()).out.split()[0]
        if sluice.good("detokenize", MODEL, stdin=half).text != "\ufffd":
            complaints.append("a part of a character is not the replacement character")
    with tap.case("tokenize and detokenize read files") as complaints:
        with harness.temporary_folder() as folder:
            (folder / "t").write_text("some text")
            ids = sluice.good("tokenize", MODEL, "--text", folder / "t").out
            (folder / "i").write_bytes(ids.replace(b" ", b",\n"))
            if sluice.good("detokenize", MODEL, "--ids", folder / "i").out != b"some text":
                complaints.append(ids)


def check_inspect(tap, sluice):
    with tap.case("inspect describes the model") as complaints:
        whole = sluice.good("inspect", MODEL, "--json").json
        for key, value in {"n_layers": 8, "hidden_size": 256, "vocab_size": 8192, "n_experts": 32,
                           "n_experts_used": 4, "trained_context": 4096, "n_ctx": 4096,
                           "skipped_bytes": 0}.items():
            if whole[key] != value:
                complaints.append(f"{key}: {whole[key]}, not {value}")
        if not 32e6 < whole["n_parameters"] < 33e6:
            complaints.append(f"n_parameters: {whole['n_parameters']}")
        listed = sluice.good("inspect", MODEL, "--json", "--tensors").json["tensors"]
        if len(listed) != whole["n_tensors"]:
            complaints.append(f"{len(listed)} tensors, not {whole['n_tensors']}")
        size = {kind: sum(t["bytes"] for t in listed if t["kind"] == kind)
                for kind in ("dense", "expert")}
        # What is kept as 32-bit floats counts as converted, not as stored.
        dense = whole["dense_bytes"]
        if (size["expert"] != whole["expert_bytes"]
                or not dense <= size["dense"] <= dense + whole["converted_bytes"]):
            complaints.append(f"{size} {whole}")
        text = sluice.good("inspect", MODEL, "--tensors").text
        for word in (whole["architecture"], "32 a layer, 4 used", "MiB", listed[0]["name"]):
            if word not in text:
                complaints.append(f"lacks {word!r}: {text[:1500]}")
        half = sluice.good("inspect", MODEL, "--json", "--precision", "fast").json
        full = sluice.good("inspect", MODEL, "--json", "--precision", "exact", "--ctx", 99).json
        if full["kv_bytes_per_token"] != 2 * half["kv_bytes_per_token"] or full["n_ctx"] != 99:
            complaints.append(f"{half} {full}")
    with tap.case("inspect says what it skips") as complaints:
        model = harness.REFERENCES / "qwen3_5_moe-multimodal"
        whole = sluice.good("inspect", model, "--json", "--tensors").json
        skipped = [t for t in whole["tensors"] if t["kind"] == "skipped"]
        if not skipped or sum(t["bytes"] for t in skipped) != whole["skipped_bytes"]:
            complaints.append(whole)
        if "does not need" not in sluice.good("inspect", model).text:
            complaints.append("the text does not say so")


# Failures

def check_failures(tap, sluice):
    ids = ("--ids", "-")
    out = ("--out", "/dev/null")
    with tap.case("a prompt or a list of ids that is empty") as complaints:
        expect(complaints, sluice.run("run", MODEL, "--prompt", ""), 1, "the prompt is empty")
        expect(complaints, sluice.run("run", MODEL, *ids), 1, "the prompt is empty")
        expect(complaints, sluice.run("logits", MODEL, *ids, *out), 1, "no ids")
        expect(complaints, sluice.run("perplexity", MODEL, *ids), 1, "0 tokens")
        expect(complaints, sluice.run("perplexity", MODEL, *ids, stdin=b"5"), 1, "1 token")
    with tap.case("ids that are none") as complaints:
        for command in (("logits", MODEL, *out), ("run", MODEL), ("perplexity", MODEL),
                        ("detokenize", MODEL)):
            expect(complaints, sluice.run(*command, *ids, stdin=b"1 2\n3 x4"), 1,
                   "standard input", "line 2, column 3", "'x4'")
            expect(complaints, sluice.run(*command, *ids, stdin=b"1 2 8192"), 1,
                   "id 8192", "number 3", "8192")
            expect(complaints, sluice.run(*command, *ids, stdin=b"2147483648"), 1, "too large")
            expect(complaints, sluice.run(*command, *ids, stdin=b"-1"), 1, "'-1'")
    with tap.case("files that are missing") as complaints:
        expect(complaints, sluice.run("run", MODEL, "--prompt-file", "/nonexistent"), 1,
               "/nonexistent", "No such file")
        expect(complaints, sluice.run("tokenize", MODEL, "--text", "/"), 1, "/", "directory")
        expect(complaints, sluice.run("logits", MODEL, "--ids", "/nonexistent", *out), 1,
               "/nonexistent")
        for command in (("run", "--prompt", "x"), ("inspect",), ("tokenize",), ("detokenize",),
                        ("perplexity", *ids), ("logits", *ids, *out)):
            expect(complaints, sluice.run(command[0], "/nonexistent", *command[1:], stdin=b"1 2"),
                   1, "/nonexistent")
        expect(complaints, sluice.run("perplexity", MODEL, *ids, "--compare", "/nonexistent",
                                      stdin=b"1 2"), 1, "/nonexistent")
    with tap.case("models that cannot be compared") as complaints:
        expect(complaints, sluice.run("perplexity", MODEL, *ids, "--compare", TINY, stdin=b"1 2"),
               1, "vocabulary", "320", "8192")


def check_no_tokenizer(tap, sluice):
    with tap.case("a model without a tokenizer takes ids, and text gets a sentence") as complaints:
        sluice.good("run", TINY, "--ids", "-", "--print-ids", "-n", 3, stdin=b"1 2 3")
        whole = sluice.good("run", TINY, "--ids", "-", "--print-ids", "--json", "-n", 3,
                            stdin=b"1 2 3").json
        if whole["text"] is not None or len(whole["ids"]) != 3:
            complaints.append(whole)
        sluice.good("perplexity", TINY, "--ids", "-", stdin=b"1 2 3")
        sluice.good("inspect", TINY)
        for args in (("run", TINY, "--prompt", "x"), ("run", TINY, "--ids", "-"),
                     ("run", TINY, "--ids", "-", "--print-ids", "--stop", "x"),
                     ("perplexity", TINY, "--text", "-"), ("tokenize", TINY), ("detokenize", TINY)):
            expect(complaints, sluice.run(*args, stdin=b"1 2 3"), 1, "tokenizer")


def check_places(tap, sluice):
    with tap.case("output that cannot be written") as complaints:
        ids = ("logits", TINY, "--ids", "-")
        for place, word in (("/nonexistent/x", "No such file"), ("/dev/full", "No space left"),
                            ("/", "directory")):
            expect(complaints, sluice.run(*ids, "--out", place, stdin=b"1 2"), 1, place, word)
        with open("/dev/full", "wb") as full:
            for args in (("run", MODEL, "--prompt", "x", "-n", 3), ("inspect", MODEL),
                         ("tokenize", MODEL), ("help",), ("run", "--help"), ("--version",)):
                expect(complaints, sluice.run(*args, stdout=full), 1, "standard output",
                       "No space left")
    with tap.case("logits leaves no other file") as complaints:
        with harness.temporary_folder() as folder:
            sluice.logits(TINY, [1, 2, 3], folder)
            sluice.run("logits", TINY, "--ids", "-", "--out", folder / "bad", stdin=b"1 999")
            if [f.name for f in folder.iterdir()] != ["logits.safetensors"]:
                complaints.append(list(folder.iterdir()))
    with tap.case("logits has the same bits as JSON of its shape says") as complaints:
        with harness.temporary_folder() as folder:
            whole = sluice.good("logits", TINY, "--ids", "-", "--out", folder / "o", "--hidden",
                                "--json", stdin=b"1 2 3").json
            _, tensors = harness.read_safetensors(folder / "o")
            if (whole["tokens"], whole["vocab_size"], whole["tensors"]) != (3, 320, len(tensors)):
                complaints.append(whole)
            if tensors["logits"].shape != [3, 320] or tensors["hidden.4"].shape != [3, 128]:
                complaints.append({k: t.shape for k, t in tensors.items()})


def check_perplexity(tap, sluice):
    with tap.case("perplexity is that of the logits") as complaints:
        ids = [(7 * i * i + 3) % 320 for i in range(23)]
        losses = []
        with harness.temporary_folder() as folder:
            for first in range(0, len(ids), 8):
                window = ids[first:first + 8]
                path = sluice.logits(TINY, window, folder, "--precision", "exact")
                logits = harness.read_safetensors(path)[1]["logits"]
                for i, following in enumerate(window[1:]):
                    row = logits.rows(i, i + 1)
                    losses.append(math.log(math.fsum(map(math.exp, row))) - row[following])
        nll = math.fsum(losses) / len(losses)
        common = ("perplexity", TINY, "--ids", "-", "--window", 8, "--precision", "exact")
        whole = sluice.good(*common, "--json", stdin=harness.id_text(ids)).json
        if whole["tokens"] != len(losses) or abs(whole["nll"] - nll) > 1e-9 * nll + 1e-6:
            complaints.append(f"{whole} is not {nll} of {len(losses)}")
        if abs(whole["ppl"] - math.exp(whole["nll"])) > 1e-6 * whole["ppl"]:
            complaints.append(whole)
        text = dict(line.split() for line in sluice.good(*common, stdin=harness.id_text(ids)).text.splitlines())
        if (int(text["tokens"]) != whole["tokens"] or abs(float(text["nll"]) - whole["nll"]) > 1e-6
                or abs(float(text["ppl"]) - whole["ppl"]) > 1e-3):
            complaints.append(f"{text} is not {whole}")
        same = sluice.good(*common, "--compare", "exact", "--json", stdin=harness.id_text(ids)).json
        if abs(same["kl"]) > 1e-12 or same["top1_agreement"] != 1 or same["nll_difference"] != 0:
            complaints.append(f"a model differs from itself: {same}")
        fewer = sluice.good(*common, "--compare", "exact", "--json", "--top-k-experts", 1,
                            stdin=harness.id_text(ids)).json
        if not fewer["kl"] > 0 or abs(fewer["nll"] - fewer["nll_difference"] - whole["nll"]) > 1e-9:
            complaints.append(f"--top-k-experts: {fewer}")


def smallest_budget(result):
    return float(re.search(r"smallest budget that works is ([0-9.]+) MiB", result.err)[1])


def check_plan(tap, sluice):
    with tap.case("the context of all ids is part of the memory plan") as complaints:
        with harness.temporary_folder() as folder:
            (folder / "ids").write_text("1 " * 40000)
            (folder / "text").write_text("a " * 40000)
            few = smallest_budget(sluice.run("perplexity", MODEL, "--ids", "-", "--ctx", 3, "--ram", 1,
                                             stdin=b"1 2 3"))
            for args in (("logits", "--ids", folder / "ids", "--out", folder / "out"),
                         ("perplexity", "--ids", folder / "ids", "--window", 50000),
                         ("perplexity", "--text", folder / "text", "--window", 20000)):
                result = sluice.run(args[0], MODEL, *args[1:], "--ram", f"{few + 10}M")
                expect(complaints, result, 1, "too few")
                if result.code == 1 and not 15 < smallest_budget(result) - few < 45:
                    complaints.append(f"{args}: {few} without, {result!r}")
            for window in (3, 50000):
                sluice.good("perplexity", MODEL, "--ids", "-", "--window", window, "--ctx", 3,
                            "--ram", f"{few}M", "--verify", stdin=b"1 2 3")
            expect(complaints, sluice.run("perplexity", MODEL, "--ids", "-", "--ctx", 3,
                                          stdin=b"1 2 3 4"), 1, "4 ids", "3 tokens")


def check_heat(tap, sluice):
    with tap.case("--heat fills the slots of the next run") as complaints:
        with harness.temporary_folder() as folder:
            heat = folder / "heat"
            args = ("run", MODEL, "--prompt", PROMPT, *GREEDY, "-n", 30, "--ignore-eos", "--json",
                    "--slots", 96, "--heat", heat)
            cold = sluice.good(*args).json
            size = heat.stat().st_size
            warm = sluice.good(*args).json
            if warm["ids"] != cold["ids"] or heat.stat().st_size != size:
                complaints.append(f"{warm['ids']} and {heat.stat().st_size} bytes, not "
                                  f"{cold['ids']} and {size}")
            misses = [run["stats"]["engine"]["expert_misses"] for run in (cold, warm)]
            if misses[1] > misses[0] - 48:
                complaints.append(f"misses without a profile and with one: {misses}")
            expect(complaints, sluice.run(*args, "--io", "mmap"), 1, "mapped experts")
            heat.write_bytes(heat.read_bytes()[:-1])
            expect(complaints, sluice.run(*args), 1, f"{heat}: heat profile", f"not {size}")
            heat.write_bytes(b"no profile")
            expect(complaints, sluice.run(*args), 1, "no heat profile")
            if heat.read_bytes() != b"no profile":
                complaints.append("a run that failed wrote a profile")
            expect(complaints, sluice.run(*args[:-1], folder / "none" / "heat"), 1, "none/heat")
            expect(complaints, sluice.run(*args, "-n", 1, "--heat", folder), 1, str(folder))


def check_log(tap, sluice):
    with tap.case("SLUICE_LOG chooses what is said") as complaints:
        args = ("run", MODEL, "--prompt", "x", "-n", 1)
        if sluice.run(*args).err:
            complaints.append("says something without it")
        expect(complaints, sluice.run(*args, env={"SLUICE_LOG": "loud"}), 0, "SLUICE_LOG", "'loud'")
        for level in ("warning", "info", "debug"):
            got = sluice.run(*args, env={"SLUICE_LOG": level})
            if got.code or any(not line.startswith("sluice: ") for line in got.err.splitlines()):
                complaints.append(got)


def tests(tap, sluice):
    for check in (check_usage, check_help, check_manual, check_run, check_defaults, check_stop,
                  check_context, check_round_trip, check_inspect, check_failures,
                  check_no_tokenizer, check_places, check_perplexity, check_plan,
                  check_heat, check_log):
        check(tap, sluice)


harness.main(tests)

"""The shipped model: its logits, continuations and perplexity are those of the reference."""
import json
import math

import harness

TOLERANCE = 5e-4  # of the standard deviation of the logits
# A greedy step whose two best logits are nearer than this may go either way.
MARGINS = {"exact": 1e-3, "fast": 0.05}
WINDOW = 1024


def read_reference():
    _, tensors = harness.read_safetensors(harness.STORYTELLER / "reference.safetensors")
    return tensors


def negative_log_likelihoods(logits, ids):
    """-log p of ids[1:], from the row before each."""
    width = logits.shape[1]
    losses = []
    for i, following in enumerate(ids[1:]):
        row = logits.values[i * width:(i + 1) * width]
        most = max(row)
        total = math.fsum(math.exp(v - most) for v in row)
        losses.append(most + math.log(total) - row[following])
    return losses


def check_logits(tap, sluice, want):
    ids = list(want["input_ids"].values)
    with harness.temporary_folder() as folder:
        with tap.case("exact logits are those of the reference") as complaints:
            out = sluice.logits(harness.STORYTELLER, ids, folder, "--precision", "exact")
            got = harness.read_safetensors(out)[1]["logits"]
            allowed = TOLERANCE * harness.standard_deviation(want["logits_last64"].values)
            worst = harness.largest_difference(want["logits_last64"].values, got.rows(192, 256))
            if not worst <= allowed:
                complaints.append(f"differ by {worst:.3g}, allowed {allowed:.3g}")
            losses = negative_log_likelihoods(got, ids)
            worst = harness.largest_difference(losses, want["nll"].values[:len(losses)])
            if not worst <= 2 * allowed:
                complaints.append(f"nll of a token differs by {worst:.3g}")


def check_threads(tap, sluice, want):
    ids = list(want["input_ids"].values)[:256 if harness.SLOW else 64]
    for precision in ("exact", "fast"):
        with harness.temporary_folder() as folder:
            with tap.case(f"{precision}: 1, 2 and 4 threads give the same bits") as complaints:
                files = [sluice.logits(harness.STORYTELLER, ids, folder, "--precision", precision,
                                       "--threads", n).read_bytes() for n in (1, 2, 4)]
                if files[0] != files[1] or files[0] != files[2]:
                    complaints.append("the files differ")


def check_continuation(sluice, entry, precision, complaints):
    ids = sluice.good("tokenize", harness.STORYTELLER, stdin=entry["prompt"].encode()).out
    if [int(w) for w in ids.split()] != entry["prompt_ids"]:
        complaints.append(f"{entry['prompt']!r} becomes {ids!r}")
    common = ("run", harness.STORYTELLER, "--prompt", entry["prompt"], "--temperature", 0,
              "--ignore-eos", "-n", len(entry["greedy_ids"]), "--precision", precision)
    got = [int(w) for w in sluice.good(*common, "--print-ids").out.split()]
    sure = next((i for i, m in enumerate(entry["margins"]) if m < MARGINS[precision]),
                len(entry["margins"]))
    if len(got) != len(entry["greedy_ids"]) or got[:sure] != entry["greedy_ids"][:sure]:
        complaints.append(f"first {sure} ids\nwant {entry['greedy_ids']}\ngot {got}")
    if got == entry["greedy_ids"]:
        text = sluice.good(*common).text
        if text != entry["text"]:
            complaints.append(f"want {entry['text']!r}\ngot {text!r}")


def check_greedy(tap, sluice):
    entries = json.loads((harness.STORYTELLER / "greedy.json").read_text())
    for precision in MARGINS:
        with tap.case(f"{precision}: greedy continuations are those of the reference") as complaints:
            for entry in entries:
                check_continuation(sluice, entry, precision, complaints)


def mean_of_windows(nll, n_windows):
    values = nll[:n_windows * (WINDOW - 1)]
    return math.fsum(values) / len(values)


def check_perplexity(tap, sluice, want):
    ids = [int(w) for w in (harness.SHARED / "val_ids.txt").read_text().split()]
    n_windows = 8 if harness.SLOW else 1
    ids = harness.id_text(ids[:n_windows * WINDOW])
    nll = mean_of_windows(want["nll"].values, n_windows)

    def measure(model, *options):
        return sluice.good("perplexity", model, "--ids", "-", "--json", *options, stdin=ids).json

    with tap.case("exact perplexity is that of the reference") as complaints:
        got = measure(harness.STORYTELLER, "--precision", "exact")
        if got["tokens"] != n_windows * (WINDOW - 1):
            complaints.append(f"tokens: {got}")
        if abs(got["nll"] - nll) > 1e-4 or abs(got["ppl"] - math.exp(nll)) > 0.005:
            complaints.append(f"want {math.exp(nll):.4f}, got {got}")
        if harness.SLOW and abs(got["ppl"] - 39.422) > 0.005:
            complaints.append(f"ppl {got['ppl']:.4f}, not 39.422")
    with tap.case("fast perplexity is within half a percent of exact") as complaints:
        got = measure(harness.STORYTELLER, "--compare", "exact")
        if abs(math.expm1(got["nll_difference"])) > 0.005:
            complaints.append(f"too far: {got}")
        if abs(got["nll"] - got["nll_difference"] - nll) > 1e-4:
            complaints.append(f"nll_difference is not the difference from {nll:.6f}: {got}")
        if not 0 <= got["kl"] < 0.02 or not 0.9 < got["top1_agreement"] <= 1:
            complaints.append(f"distributions differ too much: {got}")
    if not harness.SLOW:
        return
    with tap.case("exact perplexity of the bf16 model is that of the reference") as complaints:
        got = measure(harness.SHARED / "bf16", "--precision", "exact")
        if abs(got["ppl"] - 38.822) > 0.005:
            complaints.append(f"ppl {got['ppl']:.4f}, not 38.822")
    with tap.case("perplexity with 2 experts a token is that of the reference") as complaints:
        got = measure(harness.SHARED / "bf16", "--precision", "exact", "--top-k-experts", 2)
        if abs(got["ppl"] - 42.149) > 0.005:
            complaints.append(f"ppl {got['ppl']:.4f}, not 42.149")


def tests(tap, sluice):
    want = read_reference()
    check_logits(tap, sluice, want)
    check_threads(tap, sluice, want)
    check_greedy(tap, sluice)
    if (harness.SHARED / "val_ids.txt").exists():
        check_perplexity(tap, sluice, want)
    else:
        tap.skip("perplexity", f"{harness.SHARED.name}/val_ids.txt is not beside the repository")


harness.main(tests)

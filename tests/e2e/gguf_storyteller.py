"""Quantised GGUF files of the storyteller: the figures of another engine that ran the same weights
in fp32, tokenizer included."""
import json
import math

import harness

FOLDER = harness.SHARED / "gguf"
WINDOW = 1024
NLL = 5e-4
LOGITS = 5e-3  # two fp32 engines, so a step with a smaller margin may go either way
PERPLEXITY = 0.0015  # of fast, relative


def check_logits(tap, sluice, model, reference, variant):
    with tap.case(f"{model.name}: exact: the logits of the reference") as complaints, \
            harness.temporary_folder() as folder:
        ids = list(reference["input_ids"].values)
        out = sluice.logits(model, ids, folder, "--precision", "exact")
        got = harness.read_safetensors(out)[1]["logits"]
        want = reference[f"{variant}.logits_last8_fp32"].values
        worst = harness.largest_difference(want, got.rows(len(ids) - 8, len(ids)))
        if not worst <= LOGITS:
            complaints.append(f"differ by {worst:.3g}, allowed {LOGITS}")


def check_greedy(tap, sluice, model, prompts, greedy):
    with tap.case(f"{model.name}: exact: the continuations of the reference") as complaints:
        for prompt, want in zip(prompts, greedy, strict=True):
            ids = sluice.good("tokenize", model, stdin=prompt["prompt"].encode()).out
            if [int(w) for w in ids.split()] != prompt["prompt_ids"]:
                complaints.append(f"{prompt['prompt']!r} becomes {ids!r}")
            n = len(want["greedy_ids"])
            got = sluice.greedy(model, prompt["prompt_ids"], n, "--precision", "exact")
            sure = next((i for i, m in enumerate(want["margins"]) if m < LOGITS), n)
            if len(got) != n or got[:sure] != want["greedy_ids"][:sure]:
                complaints.append(f"first {sure} ids\nwant {want['greedy_ids']}\ngot {got}")


def check_perplexity(tap, sluice, model, nll_of_tokens):
    n_windows = 8 if harness.SLOW else 1
    text = (harness.SHARED / "val_ids.txt").read_text().split()[:n_windows * WINDOW]
    want = math.fsum(nll_of_tokens[:n_windows * (WINDOW - 1)]) / (n_windows * (WINDOW - 1))

    def measure(precision):
        return sluice.good("perplexity", model, "--ids", "-", "--json", "--precision", precision,
                           stdin=harness.id_text(text)).json

    with tap.case(f"{model.name}: exact: nll of the reference") as complaints:
        got = measure("exact")
        if got["tokens"] != n_windows * (WINDOW - 1) or not abs(got["nll"] - want) <= NLL:
            complaints.append(f"want nll {want:.6f}, got {got}")
    with tap.case(f"{model.name}: fast: perplexity of the reference") as complaints:
        got = measure("fast")
        if not abs(math.expm1(got["nll"] - want)) <= PERPLEXITY:
            complaints.append(f"want nll {want:.6f}, got {got}")


def tests(tap, sluice):
    if not (FOLDER / "peer.json").exists():
        tap.skip("GGUF storyteller", f"{FOLDER.parent.name}/gguf is not beside the repository")
        return
    peer = json.loads((FOLDER / "peer.json").read_text())
    _, reference = harness.read_safetensors(FOLDER / "reference.safetensors")
    for name, figures in peer["files"].items():
        model = FOLDER / name
        variant = model.stem.removeprefix("storyteller-")
        check_logits(tap, sluice, model, reference, variant)
        check_greedy(tap, sluice, model, peer["prompts"], figures["fp32"]["greedy"])
        check_perplexity(tap, sluice, model, reference[f"{variant}.nll_fp32"].values)


harness.main(tests)

"""Every reference checkpoint gives the outputs that its reference.safetensors holds."""
import math

import harness

TOLERANCE = 5e-4  # of the standard deviation of what is compared
# In fast precision a random router chooses other experts now and then. Unrelated logits would be
# at a distance of 1.4.
FAST_TOLERANCE = 0.5
N_GREEDY = 24
# Too large for the repository.
LARGER = ["qwen3_next", "qwen3_moe", "glm4_moe"]


def check_outputs(tap, name, want, got):
    with tap.case(f"{name}: logits and hidden states are those of the reference") as complaints:
        for key, tensor in want.items():
            if key != "logits" and not key.startswith("hidden."):
                continue
            if key not in got or got[key].shape != tensor.shape:
                complaints.append(f"{key}: missing or misshapen")
                continue
            allowed = TOLERANCE * harness.standard_deviation(tensor.values)
            worst = harness.largest_difference(tensor.values, got[key].values)
            if not worst <= allowed:
                complaints.append(f"{key}: differs by {worst:.3g}, allowed {allowed:.3g}")
        if set(got) != {k for k in want if k == "logits" or k.startswith("hidden.")}:
            complaints.append(f"tensors: {sorted(got)}")


def check_fast(tap, sluice, model, ids, want):
    with harness.temporary_folder() as folder:
        with tap.case(f"{model.name}: fast logits are near the reference") as complaints:
            _, got = harness.read_safetensors(sluice.logits(model, ids, folder))
            pairs = zip(want["logits"].values, got["logits"].values)
            distance = math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs)
                                 / len(want["logits"].values))
            allowed = FAST_TOLERANCE * harness.standard_deviation(want["logits"].values)
            if got["logits"].shape != want["logits"].shape or not distance <= allowed:
                complaints.append(f"distance {distance:.3g}, allowed {allowed:.3g}")


def check_greedy(tap, sluice, model, metadata, want):
    with tap.case(f"{model.name}: the greedy continuation is that of the reference") as complaints:
        prompt = want["input_ids"].values[:int(metadata["prompt_len"])]
        got = sluice.greedy(model, prompt, N_GREEDY, "--precision", "exact")
        if got != list(want["greedy"].values):
            complaints.append(f"want {list(want['greedy'].values)}\ngot {got}")


def check_cuts(tap, sluice, model, ids):
    """Chunks and threads change no bit of the file."""
    ways = [("--chunk", 1), ("--chunk", 7), ("--chunk", 64), ("--threads", 1), ("--threads", 2),
            ("--threads", 5)]
    for precision in ("exact", "fast"):
        with harness.temporary_folder() as folder:
            with tap.case(f"{model.name}: {precision}: chunks and threads change no bit") as complaints:
                common = (model, ids, folder, "--precision", precision, "--hidden")
                whole = sluice.logits(*common).read_bytes()
                for way in ways if harness.SLOW else ways[:5:2]:
                    if sluice.logits(*common, *way).read_bytes() != whole:
                        complaints.append(f"{way[0]} {way[1]} gives other bits")


def references(tap):
    """The committed folders, and larger ones that may lie beside the repository."""
    models = sorted(p.parent for p in harness.REFERENCES.glob("*/reference.safetensors"))
    tap.ok(len(models) >= 4, "the reference checkpoints are there", models)
    for name in LARGER:
        model = harness.SHARED_REFERENCES / name
        if model.exists():
            models.append(model)
        else:
            tap.skip(f"{name}: the reference", f"{model} is not there")
    return models


def tests(tap, sluice):
    for model in references(tap):
        metadata, want = harness.read_safetensors(model / "reference.safetensors")
        ids = list(want["input_ids"].values)
        with harness.temporary_folder() as folder:
            got = {}
            with tap.case(f"{model.name}: evaluates in exact precision"):
                out = sluice.logits(model, ids, folder, "--precision", "exact", "--hidden")
                _, got = harness.read_safetensors(out)
        check_outputs(tap, model.name, want, got)
        check_greedy(tap, sluice, model, metadata, want)
        check_fast(tap, sluice, model, ids, want)
        check_cuts(tap, sluice, model, ids)


harness.main(tests)

"""Synthetic checkpoints: each can be run, and what cannot be made is refused before it is begun."""
import json
import math

import harness

SHAPE = harness.REFERENCES / "qwen3_5_moe" / "config.json"
IDS = [5, 9, 2, 300]


def write_config(folder, **fields):
    """A small shape in which every row has a multiple of 128 weights, with some fields changed."""
    config = json.loads(SHAPE.read_text())
    config |= {"moe_intermediate_size": 128, "shared_expert_intermediate_size": 128} | fields
    path = folder / "shape.json"
    path.write_text(json.dumps(config))
    return path


def check_runs(tap, sluice):
    forms = [("mlx", bits, 64) for bits in (2, 3, 4, 5, 6, 8)]
    forms += [("mlx", 4, 32), ("mlx", 3, 128), ("bf16", 4, 64)]
    for layout, bits, group in forms:
        name = f"{layout}, {bits} bits in groups of {group}: runs, and numbers stay finite"
        with tap.case(name) as complaints, harness.temporary_folder() as folder:
            model = folder / "model"
            made = sluice.run("synth", model, "--like", write_config(folder), "--layout", layout,
                              "--bits", bits, "--group", group)
            if made.code or made.out or "wrote" not in made.err:
                complaints.append(made)
                continue
            config = json.loads((model / "config.json").read_text())
            stored = config.get("quantization", {"bits": None, "group_size": None})
            want = (bits, group) if layout == "mlx" else (None, None)
            if (stored["bits"], stored["group_size"]) != want:
                complaints.append(stored)
            _, tensors = harness.read_safetensors(sluice.logits(model, IDS, folder))
            values = tensors["logits"].values
            if not all(map(math.isfinite, values)) or len(set(values)) < len(values) / 2:
                complaints.append(f"{values[:8]}")


def check_seed(tap, sluice):
    with tap.case("a seed gives the same bytes, another one others") as complaints:
        with harness.temporary_folder() as folder:
            shape = write_config(folder)
            for name, seed in (("a", 1), ("b", 1), ("c", 2)):
                sluice.run("synth", folder / name, "--like", shape, "--seed", seed)
            a, b, c = ((folder / name / "model-00001-of-00001.safetensors").read_bytes()
                       for name in "abc")
            if a != b or a == c:
                complaints.append(f"same: {a == b}, other: {a != c}")


def refused(sluice, folder, complaints, code, options, *words, **fields):
    model = folder / "refused"
    result = sluice.run("synth", model, "--like", write_config(folder, **fields), *options)
    if result.code != code or result.out or len(result.err.splitlines()) != 1:
        complaints.append(f"not refused: {result!r}")
    if model.exists():
        complaints.append(f"{options} {fields}: the folder was begun")
    for word in words:
        if word not in result.err:
            complaints.append(f"lacks '{word}': {result.err}")


def check_refusals(tap, sluice):
    with tap.case("what no engine could open is not written") as complaints:
        with harness.temporary_folder() as folder:
            for option, value in (("--bits", 7), ("--group", 33), ("--layout", "gguf")):
                refused(sluice, folder, complaints, 2, (option, value), option, f"'{value}'")
            refused(sluice, folder, complaints, 1, ("--layout", "mxfp4"), "qwen3_5_moe", "MXFP4",
                    "gpt_oss")
            refused(sluice, folder, complaints, 1, ("--group", 128), "down_proj", "64", "--group",
                    moe_intermediate_size=64)
            refused(sluice, folder, complaints, 1, ("--layers", 9), "layer_types")
            refused(sluice, folder, complaints, 1, (), "3 layers", "4 layer_types",
                    num_hidden_layers=3)
            refused(sluice, folder, complaints, 1, (), "16000000 layers", layer_types=None,
                    num_hidden_layers=16000000)
            refused(sluice, folder, complaints, 1, (), "hidden_size", hidden_size=-1)
            refused(sluice, folder, complaints, 1, (), "mammoth", model_type="mammoth")
            huge = {key: 1 << 24 for key in ("hidden_size", "num_experts", "moe_intermediate_size",
                                             "num_attention_heads", "head_dim")}
            refused(sluice, folder, complaints, 1, (), "larger than any file", **huge)
    with tap.case("a folder that holds a model is left alone") as complaints:
        with harness.temporary_folder() as folder:
            (folder / "config.json").write_text("{}")
            result = sluice.run("synth", folder, "--like", SHAPE, "--group", 32)
            if result.code != 1 or "holds a model already" not in result.err:
                complaints.append(result)
            if [f.name for f in folder.iterdir()] != ["config.json"]:
                complaints.append(list(folder.iterdir()))


def tests(tap, sluice):
    check_runs(tap, sluice)
    check_seed(tap, sluice)
    check_refusals(tap, sluice)


harness.main(tests)

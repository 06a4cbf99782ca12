"""GGUF files: reference checkpoints written as such give the outputs of the reference."""
import array
import json
import shutil
import struct

import gguf_writer
import harness

TOLERANCE = 5e-4  # of the standard deviation of what is compared
# Layers and routers as the metadata can say, and float weights.
QWEN = ("qwen3_5_moe", "all-full", "all-linear", "untied-f16", "sharded")
FAMILIES = (
    ("qwen3_moe", gguf_writer.qwen3moe), ("qwen3_moe-yarn", gguf_writer.qwen3moe),
    ("qwen3_next", gguf_writer.qwen3next), ("qwen3_next-interval", gguf_writer.qwen3next),
    ("glm4_moe", gguf_writer.glm4moe), ("glm4_moe-groups", gguf_writer.glm4moe),
    ("glm4_moe-no-dense", gguf_writer.glm4moe), ("mixtral-window", gguf_writer.llama),
    ("olmoe", gguf_writer.olmoe), ("minimax_m2", gguf_writer.minimax_m2),
    ("deepseek_v3", gguf_writer.deepseek2), ("deepseek_v3", gguf_writer.deepseek2_joint),
    ("gpt_oss", gguf_writer.gpt_oss),
)


def find_reference(name):
    """The folder of a reference checkpoint, which may lie beside the repository; or None."""
    places = (harness.REFERENCES / name, harness.SHARED.parent / "reference" / name)
    return next((p for p in places if p.exists()), None)


def compare(want, got, complaints):
    for key, tensor in want.items():
        if key != "logits" and not key.startswith("hidden."):
            continue
        allowed = TOLERANCE * harness.standard_deviation(tensor.values)
        worst = harness.largest_difference(tensor.values, got[key].values)
        if not worst <= allowed:
            complaints.append(f"{key}: differs by {worst:.3g}, allowed {allowed:.3g}")


def check_reference(tap, sluice, name, convert):
    """convert(folder, fused) gives keys and tensors of the checkpoint called name."""
    source = find_reference(name)
    if not source:
        tap.skip(f"{name} as GGUF", "the reference is not beside the repository")
        return
    _, want = harness.read_safetensors(source / "reference.safetensors")
    ids = list(want["input_ids"].values)
    with harness.temporary_folder() as folder:
        with tap.case(f"{name} as GGUF: logits and hidden states of the reference") as complaints:
            keys, tensors = convert(source, False)
            model = folder / "model.gguf"
            gguf_writer.write(model, keys, tensors)
            out = sluice.logits(model, ids, folder, "--precision", "exact", "--hidden")
            whole = out.read_bytes()
            compare(want, harness.read_safetensors(out)[1], complaints)
        with tap.case(f"{name} as GGUF: fused, in parts, version 2: the same bits") as complaints:
            fused = folder / "fused.gguf"
            gguf_writer.write(fused, *convert(source, True), version=2)
            parts = gguf_writer.write_split(folder, "split", keys, tensors, 3)
            for path in (fused, parts[0], parts[2]):
                out = sluice.logits(path, ids, folder, "--precision", "exact", "--hidden")
                if out.read_bytes() != whole:
                    complaints.append(f"{path.name} gives other bits")


def check_attention_factor(tap, sluice):
    with tap.case("YaRN with a factor of its own: GGUF as safetensors") as complaints, \
            harness.temporary_folder() as folder:
        source = harness.REFERENCES / "qwen3_moe-yarn"
        model = folder / "model"
        shutil.copytree(source, model)
        config = json.loads((model / "config.json").read_text())
        config["rope_parameters"]["attention_factor"] = 1.3
        (model / "config.json").write_text(json.dumps(config))
        gguf_writer.write(folder / "model.gguf", *gguf_writer.qwen3moe(model, False))
        runs = [sluice.logits(m, range(30), folder, "--precision", "exact").read_bytes()
                for m in (source, model, folder / "model.gguf")]
        if runs[0] == runs[1] or len(runs[1]) != len(runs[2]):
            complaints.append("the factor changes nothing")
        pairs = zip(array.array("f", runs[1][-4000:]), array.array("f", runs[2][-4000:]))
        if not max(abs(a - b) for a, b in pairs) < 1e-3:
            complaints.append("other logits")


def check_streamed(tap, sluice, name, convert):
    """Slots, chunks and threads change no bit."""
    source = find_reference(name)
    if not source:
        tap.skip(f"{name} as GGUF: streamed", "the reference is not beside the repository")
        return
    ids = list(harness.read_safetensors(source / "reference.safetensors")[1]["input_ids"].values)
    for precision in ("exact", "fast"):
        with tap.case(f"{name} as GGUF: {precision}: streamed is resident") as complaints, \
                harness.temporary_folder() as folder:
            model = folder / "model.gguf"
            gguf_writer.write(model, *convert(source, False))
            common = (model, ids, folder, "--precision", precision)
            whole = sluice.logits(*common, "--io", "mmap").read_bytes()
            for way in (("--slots", 3), ("--slots", 5, "--io", "pread"), ("--chunk", 7),
                        ("--slots", 3, "--chunk", 1), ("--threads", 3)):
                if sluice.logits(*common, *way).read_bytes() != whole:
                    complaints.append(f"{way} gives other bits")


def check_commands(tap, sluice):
    with tap.case("commands take a GGUF file") as complaints, harness.temporary_folder() as folder:
        model = folder / "model.gguf"
        gguf_writer.write(model, *gguf_writer.qwen35moe(harness.REFERENCES / "qwen3_5_moe"))
        text = sluice.good("inspect", model).text
        for words in ("qwen3_5_moe_text", "320 ids", "8 a layer, 3 used"):
            if words not in text:
                complaints.append(f"inspect lacks '{words}': {text}")
        sluice.good("trace", model, "--out", folder / "trace", "--ids", "-", stdin=b"5 6 7")
        sluice.good("perplexity", model, "--ids", "-", "--window", 4, stdin=b"5 6 7 8")
        packed = sluice.run("pack", model, folder / "packed")
        if packed.code != 1 or "is a GGUF model" not in packed.err:
            complaints.append(f"pack: {packed!r}")
        if (folder / "packed").exists():
            complaints.append("pack left a folder behind")


def set_key(name, kind, item):
    def damage(keys, tensors):
        keys[name] = (kind, item)
    return damage


def without_key(name):
    return lambda keys, tensors: keys.pop(name)


def without_tensor(name):
    return lambda keys, tensors: tensors.pop(name)


def add_tensor(name):
    def damage(keys, tensors):
        tensors[name] = gguf_writer.Tensor("F32", [4], struct.pack("<4f", 0, 0, 0, 0))
    return damage


def cut_rows(name):
    def damage(keys, tensors):
        tensors[name] = tensors[name].taking(range(1))
    return damage


U32, F32, STRING, ARRAY = gguf_writer.U32, gguf_writer.F32, gguf_writer.STRING, gguf_writer.ARRAY
DAMAGES = [
    ("another architecture", set_key("general.architecture", STRING, "mamba"),
     ["model.gguf", "general.architecture", "mamba", "qwen35moe"]),
    ("no architecture", without_key("general.architecture"), ["general.architecture"]),
    ("a key is missing", without_key("qwen35moe.embedding_length"),
     ["model.gguf", "qwen35moe.embedding_length", "missing"]),
    ("a key of another type", set_key("qwen35moe.expert_count", ARRAY, (U32, [4, 4])),
     ["qwen35moe.expert_count", "array of u32"]),
    ("value heads of another size", set_key("qwen35moe.attention.value_length", U32, 16),
     ["attention.value_length", "16"]),
    ("too many dimensions rotate", set_key("qwen35moe.rope.dimension_count", U32, 4096),
     ["rope.dimension_count", "4096"]),
    ("more draft layers than layers", set_key("qwen35moe.nextn_predict_layers", U32, 9),
     ["nextn_predict_layers", "9"]),
    ("more layers than the metadata counts", set_key("qwen35moe.block_count", U32, 2),
     ["model.gguf", "blk.2.", "belongs to no part"]),
    ("no experts", set_key("qwen35moe.expert_count", U32, 0),
     ["model.gguf: metadata as a config.json", "num_experts"]),
    ("sizes that do not divide", set_key("qwen35moe.ssm.inner_size", U32, 127),
     ["ssm.inner_size", "127"]),
    ("more tokens than rows",
     set_key("tokenizer.ggml.tokens", ARRAY, (STRING, ["x"] * 321)), ["321", "320"]),
    ("no embedding", without_tensor("token_embd.weight"), ["token_embd.weight"]),
    ("a tensor is missing", without_tensor("blk.1.ssm_a"), ["blk.1.ssm_a"]),
    ("experts are missing", without_tensor("blk.0.ffn_up_exps.weight"), ["blk.0.ffn_up_exps"]),
    ("a tensor too many", add_tensor("blk.2.extra.weight"), ["blk.2.extra.weight"]),
    ("a misshapen tensor", cut_rows("blk.0.ssm_beta.weight"), ["blk.0.ssm_beta.weight", "4 x 128"]),
]


DEEPSEEK = [
    ("a router that is no sigmoid", set_key("deepseek2.expert_gating_func", U32, 1),
     ["expert_gating_func", "is 1"]),
    ("no kind of router", without_key("deepseek2.expert_gating_func"), ["expert_gating_func"]),
    ("heads that all rotate", set_key("deepseek2.rope.dimension_count", U32, 48),
     ["rope.dimension_count", "48"]),
    ("no latents", without_key("deepseek2.attention.kv_lora_rank"), ["kv_lora_rank", "missing"]),
    ("scores far too large", set_key("deepseek2.rope.scaling.yarn_log_multiplier", F32, -1),
     ["yarn_log_multiplier"]),
    ("keys of heads without values", without_tensor("blk.1.attn_v_b.weight"), ["blk.1.attn_v_b", "missing"]),
    ("values of heads without keys", without_tensor("blk.1.attn_k_b.weight"),
     ["blk.1.attn_k_b", "missing"]),
    ("no correction", without_tensor("blk.1.exp_probs_b.bias"), ["blk.1.exp_probs_b.bias"]),
]
GPT_OSS = [
    ("no window", without_key("gpt-oss.attention.sliding_window"), ["sliding_window", "missing"]),
    ("other positions", set_key("gpt-oss.rope.scaling.type", STRING, "longrope"),
     ["rope.scaling.type", "longrope"]),
    ("no sinks", without_tensor("blk.1.attn_sinks.weight"), ["blk.1.attn_sinks.weight", "missing"]),
    ("no bias of the router", without_tensor("blk.0.ffn_gate_inp.bias"), ["blk.0.ffn_gate_inp.bias"]),
    ("no bias of experts", without_tensor("blk.0.ffn_up_exps.bias"), ["blk.0.ffn_up_exps.bias"]),
    ("no bias of queries", without_tensor("blk.0.attn_q.bias"), ["attention_bias"]),
]


def check_damages(tap, sluice, reference, convert, damages):
    for name, damage, words in damages:
        with tap.case(f"{reference}: refused: {name}") as complaints, \
                harness.temporary_folder() as folder:
            keys, tensors = convert(harness.REFERENCES / reference)
            damage(keys, tensors)
            gguf_writer.write(folder / "model.gguf", keys, tensors)
            result = sluice.run("inspect", folder / "model.gguf")
            if result.code != 1 or result.out or len(result.err.splitlines()) != 1:
                complaints.append(f"not refused in a sentence: {result!r}")
            complaints.extend(f"lacks '{w}': {result.err}" for w in words if w not in result.err)


def check_draft_layers(tap, sluice):
    with tap.case("draft layers and an absent head are no obstacle") as complaints, \
            harness.temporary_folder() as folder:
        keys, tensors = gguf_writer.qwen35moe(harness.REFERENCES / "qwen3_5_moe")
        tensors["output.weight"] = tensors["token_embd.weight"]
        gguf_writer.write(folder / "untied.gguf", keys, tensors)
        layers = keys["qwen35moe.block_count"][1]
        keys["qwen35moe.block_count"] = (U32, layers + 1)
        keys["qwen35moe.nextn_predict_layers"] = (U32, 1)
        for name in ("attn_norm.weight", "nextn.enorm.weight"):
            tensors[f"blk.{layers}.{name}"] = tensors["blk.0.attn_norm.weight"]
        del tensors["output.weight"]
        gguf_writer.write(folder / "draft.gguf", keys, tensors)
        files = [sluice.logits(folder / name, range(20), folder, "--precision", "exact").read_bytes()
                 for name in ("untied.gguf", "draft.gguf")]
        if files[0] != files[1]:
            complaints.append("the logits differ")


def vocabulary_keys(folder):
    """What a GGUF file has of a tokenizer.json without peculiarities."""
    source = json.loads((folder / "tokenizer.json").read_text())
    added = {t["id"]: t for t in source["added_tokens"]}
    by_id = {id: text for text, id in source["model"]["vocab"].items()}
    by_id.update((id, t["content"]) for id, t in added.items())
    kinds = [(3 if added[i]["special"] else 4) if i in added else 1 for i in range(len(by_id))]
    merges = [m if isinstance(m, str) else " ".join(m) for m in source["model"]["merges"]]
    ggml = "tokenizer.ggml."
    return {ggml + "model": (STRING, "gpt2"), ggml + "pre": (STRING, "qwen35"),
            ggml + "tokens": (ARRAY, (STRING, [by_id[i] for i in range(len(by_id))])),
            ggml + "token_type": (ARRAY, (gguf_writer.I32, kinds)),
            ggml + "merges": (ARRAY, (STRING, merges))}


def check_text(tap, sluice):
    """The storyteller's tokenizer as metadata gives the ids of its tokenizer.json."""
    with tap.case("metadata and tokenizer.json give the same ids") as complaints, \
            harness.temporary_folder() as folder:
        file = folder / "vocabulary.gguf"
        keys = vocabulary_keys(harness.STORYTELLER)
        gguf_writer.write(file, keys, {})
        for text in TEXTS:
            ids = [sluice.good("tokenize", model, stdin=text.encode()).out
                   for model in (harness.STORYTELLER, file, folder)]
            if ids[0] != ids[1] or ids[1] != ids[2]:
                complaints.append(f"{text!r}: {ids}")
        result = sluice.run("inspect", file)
        if result.code != 1 or "holds no tensors" not in result.err:
            complaints.append(f"inspect of a vocabulary: {result!r}")
    with tap.case("an unknown way to split is an error for text, not for ids") as complaints, \
            harness.temporary_folder() as folder:
        model_keys, tensors = gguf_writer.qwen35moe(harness.REFERENCES / "qwen3_5_moe")
        for name, item in keys.items():
            model_keys[name] = item
        model_keys["tokenizer.ggml.pre"] = (STRING, "another")
        for name in ("tokens", "token_type"):
            kind, (item, values) = keys["tokenizer.ggml." + name]
            model_keys["tokenizer.ggml." + name] = (kind, (item, values[:300]))
        file = folder / "model.gguf"
        gguf_writer.write(file, model_keys, tensors)
        sluice.good("run", file, "--ids", "-", "--print-ids", "-n", 1, stdin=b"5")
        result = sluice.run("run", file, "--prompt", "text")
        if result.code != 1 or "'another'" not in result.err:
            complaints.append(f"{result!r}")


TEXTS = ("Once upon a time there was", "<|im_start|>user\nHi<|im_end|>\n", "cafe\u0301 12345\n\n  x",
         "", " ", "I'll NOT, won't  do\tit!\r\n")


def tests(tap, sluice):
    for name in QWEN:
        check_reference(tap, sluice, name, gguf_writer.qwen35moe)
    for name, convert in FAMILIES:
        check_reference(tap, sluice, name, convert)
    check_streamed(tap, sluice, "qwen3_5_moe", gguf_writer.qwen35moe)
    check_streamed(tap, sluice, "mixtral-window", gguf_writer.llama)
    check_streamed(tap, sluice, "deepseek_v3", gguf_writer.deepseek2)
    check_streamed(tap, sluice, "gpt_oss", gguf_writer.gpt_oss)
    check_draft_layers(tap, sluice)
    check_attention_factor(tap, sluice)
    check_commands(tap, sluice)
    check_damages(tap, sluice, "qwen3_5_moe", gguf_writer.qwen35moe, DAMAGES)
    check_damages(tap, sluice, "deepseek_v3", gguf_writer.deepseek2, DEEPSEEK)
    check_damages(tap, sluice, "gpt_oss", gguf_writer.gpt_oss, GPT_OSS)
    check_text(tap, sluice)


harness.main(tests)

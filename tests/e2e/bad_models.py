"""Broken copies of good models: each is refused with one sentence that names what is wrong."""
import json
import shutil
import struct

import harness

PLAIN = harness.REFERENCES / "qwen3_5_moe"
PACKED = harness.REFERENCES / "qwen3_5_moe-mlx4"
WEIGHTS = "model.safetensors"
NORM = "model.layers.0.input_layernorm.weight"
LAST = "model.norm.weight"  # in the file
HEAD = "lm_head.weight"
PACKED_HEAD = "language_model.lm_head.weight"


class Checkpoint:
    """A safetensors file taken apart, to be put together with something wrong."""

    def __init__(self, path):
        self.path = path
        data = path.read_bytes()
        (n,) = struct.unpack_from("<Q", data)
        self.header = json.loads(data[8:8 + n])
        self.data = data[8 + n:]

    def write(self, header_text=None, length=None, data=None):
        text = json.dumps(self.header) if header_text is None else header_text
        head = text.encode() if isinstance(text, str) else text
        length = len(head) if length is None else length
        data = self.data if data is None else data
        self.path.write_bytes(struct.pack("<Q", length) + head + data)


def edit_header(change):
    def apply(model):
        file = Checkpoint(model / WEIGHTS)
        change(file.header)
        file.write()
    return apply


def edit_config(change):
    def apply(model):
        path = model / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))
    return apply


def set_config(key, value):
    """Sets a field of the text model, whose config may be nested."""
    return edit_config(lambda c: c.get("text_config", c).__setitem__(key, value))


def drop_config(key):
    return edit_config(lambda c: c.get("text_config", c).pop(key))


def set_entry(name, field, value):
    return edit_header(lambda h: h[name].__setitem__(field, value))


def replace_text(file, old, new):
    def apply(model):
        text = (model / file).read_text()
        if old not in text:
            raise ValueError(f"{file} lacks {old!r}")
        (model / file).write_text(text.replace(old, new, 1))
    return apply


def write(file, data):
    return lambda model: (model / file).write_bytes(data)


def remove(file):
    return lambda model: (model / file).unlink()


def truncate(file, n):
    return lambda model: (model / file).write_bytes((model / file).read_bytes()[:n])


def shorten(n):
    def apply(model):
        data = (model / WEIGHTS).read_bytes()
        (model / WEIGHTS).write_bytes(data[:-n])
    return apply


def long_header(model):
    file = Checkpoint(model / WEIGHTS)
    file.write(length=1 << 40)


def header_past_end(model):
    file = Checkpoint(model / WEIGHTS)
    text = json.dumps(file.header)
    file.write(header_text=text, length=len(text) + len(file.data) + 1)


def header_text(text):
    return lambda model: Checkpoint(model / WEIGHTS).write(header_text=text)


def drop_tensor(name):
    def apply(model):
        file = Checkpoint(model / WEIGHTS)
        # The bytes stay covered, so that only the name is missing.
        file.header["model.unknown.extra"] = file.header.pop(name)
        file.write()
    return apply


def cut_tensor(name):
    """Takes a tensor and its bytes out of the file."""
    def apply(model):
        file = Checkpoint(model / WEIGHTS)
        begin, end = file.header.pop(name)["data_offsets"]
        for entry in file.header.values():
            if "data_offsets" in entry and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [o - (end - begin) for o in entry["data_offsets"]]
        file.write(data=file.data[:begin] + file.data[end:])
    return apply


def overlap(header):
    first, second = header[HEAD], header["model.embed_tokens.weight"]
    shift = 2
    begin, end = second["data_offsets"]
    if begin != first["data_offsets"][1]:
        raise ValueError("the two tensors are no neighbours")
    second["data_offsets"] = [begin - shift, end - shift]


def misshape(name, shape):
    """Another shape of the same size."""
    return set_entry(name, "shape", shape)


def two_shards(index_change=None, duplicate=False, drop_second=False):
    """Cuts the weights into two files with an index; then something goes wrong."""
    def apply(model):
        file = Checkpoint(model / WEIGHTS)
        names = sorted((n for n in file.header if n != "__metadata__"),
                       key=lambda n: file.header[n]["data_offsets"][0])
        half = len(names) // 2
        parts = [names[:half], names[half:]]
        if duplicate:
            parts[1] = [*parts[1], NORM]
        weight_map = {}
        for number, part in enumerate(parts, 1):
            name = f"model-{number:05}-of-00002.safetensors"
            header, data = {}, b""
            for tensor in part:
                entry = file.header[tensor]
                begin, end = entry["data_offsets"]
                header[tensor] = {**entry, "data_offsets": [len(data), len(data) + end - begin]}
                data += file.data[begin:end]
                weight_map.setdefault(tensor, name)
            text = json.dumps(header).encode()
            (model / name).write_bytes(struct.pack("<Q", len(text)) + text + data)
        (model / WEIGHTS).unlink()
        index = {"metadata": {}, "weight_map": weight_map}
        if index_change:
            index_change(index["weight_map"])
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        if drop_second:
            (model / "model-00002-of-00002.safetensors").unlink()
    return apply


def edit_tokenizer(change):
    def apply(model):
        path = model / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        change(tokenizer)
        path.write_text(json.dumps(tokenizer))
    return apply


def nested(n):
    return "[" * n + "]" * n


SHARD_2 = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"

# (what is wrong, the model that is copied, how it is broken, words of the message)
CASES = [
    # Files
    ("config.json is missing", PLAIN, remove("config.json"), ["config.json"]),
    ("the weights are missing", PLAIN, remove(WEIGHTS), ["safetensors"]),
    ("config.json is empty", PLAIN, write("config.json", b""), ["config.json", "empty"]),
    ("config.json is a list", PLAIN, write("config.json", b"[]"), ["config.json", "object"]),
    ("config.json ends early", PLAIN, truncate("config.json", 300), ["config.json", "line"]),
    ("config.json is too deep", PLAIN, write("config.json", nested(100000).encode()),
     ["config.json", "line 1"]),
    ("config.json has a key twice", PLAIN,
     replace_text("config.json", '"head_dim"', '"vocab_size": 5, "head_dim"'),
     ["config.json", "vocab_size", "twice"]),
    ("config.json has a byte order mark", PLAIN, write("config.json", b"\xef\xbb\xbf{}"),
     ["config.json", "byte order mark"]),
    ("config.json is no UTF-8", PLAIN, write("config.json", b'{"model_type": "\xff\xfe"}'),
     ["config.json", "line 1"]),
    ("the weights are a Git LFS pointer", PLAIN,
     write(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
     [WEIGHTS, "Git LFS"]),
    # The header of the weights
    ("the weights are empty", PLAIN, truncate(WEIGHTS, 0), [WEIGHTS]),
    ("the weights end in the length of the header", PLAIN, truncate(WEIGHTS, 5), [WEIGHTS]),
    ("the weights end in the header", PLAIN, truncate(WEIGHTS, 900), [WEIGHTS, "header"]),
    ("the weights end early", PLAIN, shorten(1000), [WEIGHTS, "tensor", "missing; incomplete download"]),
    ("one byte is missing", PLAIN, shorten(1), [WEIGHTS, "tensor", "missing; incomplete download"]),
    ("the header is longer than the file", PLAIN, header_past_end, [WEIGHTS, "header"]),
    ("the header is absurdly long", PLAIN, long_header, [WEIGHTS, "header"]),
    ("the header is no JSON", PLAIN, header_text("{nonsense"), [WEIGHTS]),
    ("the header is a list", PLAIN, header_text("[]"), [WEIGHTS, "object"]),
    ("the header is too deep", PLAIN, header_text('{"a":' + nested(5000) + "}"), [WEIGHTS]),
    ("the header has a tensor twice", PLAIN,
     header_text('{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
                 '"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}'),
     [WEIGHTS, "'a'", "twice"]),
    ("a tensor has offsets outside of the file", PLAIN,
     set_entry(LAST, "data_offsets", [1 << 40, (1 << 40) + 256]), [WEIGHTS, LAST]),
    ("a tensor has negative offsets", PLAIN, set_entry(HEAD, "data_offsets", [-81920, 0]),
     [WEIGHTS, HEAD]),
    ("a tensor has offsets in the wrong order", PLAIN,
     set_entry(HEAD, "data_offsets", [81920, 0]), [WEIGHTS, HEAD]),
    ("two tensors overlap", PLAIN, edit_header(overlap), [WEIGHTS, "tensor"]),
    ("a tensor has another size than its shape", PLAIN, set_entry(HEAD, "shape", [320, 127]),
     [WEIGHTS, HEAD]),
    ("a shape overflows", PLAIN, set_entry(HEAD, "shape", [1 << 62, 1 << 62]), [WEIGHTS, HEAD]),
    ("a shape is negative", PLAIN, set_entry(HEAD, "shape", [-320, -128]), [WEIGHTS, HEAD]),
    ("a shape has too many dimensions", PLAIN, set_entry(HEAD, "shape", [320, 128] + [1] * 40),
     [WEIGHTS, HEAD]),
    ("a dtype is unknown", PLAIN, set_entry(HEAD, "dtype", "Q7"), [WEIGHTS, HEAD, "Q7"]),
    ("a tensor has no offsets", PLAIN, edit_header(lambda h: h[HEAD].pop("data_offsets")),
     [WEIGHTS, HEAD, "data_offsets"]),
    # Shards and their index
    ("a shard is missing", PLAIN, two_shards(drop_second=True), [SHARD_2]),
    ("a tensor is in two shards", PLAIN, two_shards(duplicate=True), [NORM, SHARD_2]),
    ("the index names a tensor that no shard has", PLAIN,
     two_shards(lambda m: m.__setitem__("extra.weight", SHARD_2)), [INDEX, "extra.weight"]),
    ("the index lacks a tensor", PLAIN, two_shards(lambda m: m.pop(NORM)), [INDEX, NORM]),
    ("the index names the wrong shard", PLAIN, two_shards(lambda m: m.__setitem__(NORM, SHARD_2)),
     [INDEX, NORM]),
    ("the index names a file outside of the folder", PLAIN,
     two_shards(lambda m: m.__setitem__(NORM, "../x.safetensors")), [INDEX, NORM]),
    ("the index names a number", PLAIN, two_shards(lambda m: m.__setitem__(NORM, 5)),
     [INDEX, NORM]),
    # Tensors against the config
    ("a tensor is missing", PLAIN, cut_tensor(NORM), [NORM, "missing"]),
    ("the head is missing", PLAIN, cut_tensor(HEAD), [HEAD, "missing"]),
    ("an expert is missing", PLAIN, cut_tensor("model.layers.2.mlp.experts.5.up_proj.weight"),
     ["model.layers.2.mlp.experts.5.up_proj.weight", "missing"]),
    ("a tensor has another name", PLAIN, drop_tensor(NORM), ["tensor"]),
    ("a matrix is transposed", PLAIN, misshape(HEAD, [128, 320]), [HEAD, "320"]),
    ("a norm is too short", PLAIN,
     edit_header(lambda h: h[NORM].update(dtype="F32", shape=[64])), [NORM, "64", "128"]),
    ("a weight has whole numbers", PLAIN, set_entry(HEAD, "dtype", "I16"), [HEAD, "I16"]),
    ("scales are missing", PACKED, cut_tensor("language_model.lm_head.scales"),
     ["language_model.lm_head.scales", "missing"]),
    ("packed weights do not fit their columns", PACKED, misshape(PACKED_HEAD, [160, 32]),
     [PACKED_HEAD]),
    ("packed weights have another width than the config says", PACKED,
     edit_config(lambda c: [c[k].__setitem__("bits", 3) for k in
                            ("quantization", "quantization_config") if k in c]), ["tensor"]),
    ("packed weights without a quantisation in the config", PACKED,
     edit_config(lambda c: [c.pop(k, None) for k in ("quantization", "quantization_config")]),
     ["packed", "quantization"]),
    ("a group size that does not exist", PACKED,
     edit_config(lambda c: [c[k].__setitem__("group_size", 48) for k in
                            ("quantization", "quantization_config") if k in c]),
     ["config.json", "group_size", "48"]),
    ("a quantisation that is not known", PACKED,
     edit_config(lambda c: [c[k].__setitem__("mode", "mxfp4") for k in
                            ("quantization", "quantization_config") if k in c]),
     ["config.json", "mode", "mxfp4"]),
    # Fields of the config
    ("model_type is not known", PLAIN, set_config("model_type", "mammoth"),
     ["config.json", "model_type", "mammoth", "qwen3_5_moe"]),
    ("model_type is missing", PLAIN, drop_config("model_type"), ["config.json", "model_type"]),
    ("rope_type is not known", PLAIN,
     edit_config(lambda c: c["rope_parameters"].__setitem__("rope_type", "spiral")),
     ["config.json", "rope_type", "spiral"]),
    ("a number is NaN", PLAIN, set_config("rms_norm_eps", float("nan")), ["config.json"]),
    ("a number is a text", PLAIN, set_config("rms_norm_eps", "1e-6"),
     ["config.json", "rms_norm_eps"]),
    ("a number is infinite", PLAIN, replace_text("config.json", "1e-06", "1e999"),
     ["config.json"]),
    ("a size is zero", PLAIN, set_config("hidden_size", 0), ["config.json", "hidden_size"]),
    ("a size is negative", PLAIN, set_config("num_experts", -8), ["config.json", "num_experts"]),
    ("a size has a fraction", PLAIN, set_config("head_dim", 32.5), ["config.json", "head_dim"]),
    ("a size is huge", PLAIN, set_config("vocab_size", 1 << 62), ["config.json", "vocab_size"]),
    ("a size is missing", PLAIN, drop_config("num_hidden_layers"),
     ["config.json", "num_hidden_layers"]),
    ("more experts are used than there are", PLAIN, set_config("num_experts_per_tok", 9),
     ["config.json", "num_experts_per_tok"]),
    ("more experts are announced than there are", PLAIN, set_config("num_experts", 9), ["9"]),
    ("more layers are announced than there are", PLAIN, set_config("num_hidden_layers", 5),
     ["config.json"]),
    ("a layer type is not known", PLAIN, set_config("layer_types", ["sliding"] * 4),
     ["config.json", "layer_types", "sliding"]),
    ("the layer types are too few", PLAIN, set_config("layer_types", ["full_attention"]),
     ["config.json", "layer_types"]),
    ("the heads do not divide", PLAIN, set_config("num_key_value_heads", 3), ["config.json"]),
    ("the activation is not known", PLAIN, set_config("hidden_act", "cubic"),
     ["config.json", "hidden_act", "cubic"]),
]

GLM, MINIMAX = harness.REFERENCES / "glm4_moe-groups", harness.REFERENCES / "minimax_m2"
MIXTRAL, OLMOE = harness.REFERENCES / "mixtral-window", harness.REFERENCES / "olmoe"
QWEN_MOE = harness.REFERENCES / "qwen3_moe-dense-tied"
QWEN_NEXT = harness.REFERENCES / "qwen3_next-dense"
CORRECTION = "model.layers.2.mlp.gate.e_score_correction_bias"


def rotate(dims):
    """rotary_dim alone, as published."""
    def change(config):
        config["rotary_dim"] = dims
        for fields in (config, config["rope_parameters"]):
            fields.pop("partial_rotary_factor")
    return edit_config(change)


# The same of the other families.
FAMILIES = [
    ("qwen3_moe: a window", QWEN_MOE, set_config("use_sliding_window", True),
     ["config.json", "use_sliding_window", "true"]),
    ("qwen3_moe: another activation", QWEN_MOE, set_config("hidden_act", "gelu"),
     ["config.json", "hidden_act", "gelu"]),
    ("qwen3_moe: no layer with experts", QWEN_MOE, set_config("mlp_only_layers", [0, 1, 2, 3]),
     ["config.json", "none of the 4 layers has experts"]),
    ("qwen3_moe: a step over all layers", QWEN_MOE, set_config("decoder_sparse_step", 5),
     ["config.json", "none of the 4 layers has experts"]),
    ("qwen3_moe: a dense layer that is not there", QWEN_MOE, set_config("mlp_only_layers", [4]),
     ["config.json", "mlp_only_layers", "4"]),
    ("qwen3_moe: dense layers that are no list", QWEN_MOE, set_config("mlp_only_layers", "all"),
     ["config.json", "mlp_only_layers", "list"]),
    ("qwen3_moe: dense layers of no width", QWEN_MOE, drop_config("intermediate_size"),
     ["config.json", "intermediate_size"]),
    ("qwen3_moe: biases that are not there", QWEN_MOE, set_config("attention_bias", True),
     ["self_attn.q_proj.bias", "missing"]),
    ("qwen3_moe: no number of experts", QWEN_MOE, drop_config("num_local_experts"),
     ["config.json", "num_experts"]),
    ("qwen3_next: a layer type that is not known", QWEN_NEXT,
     set_config("layer_types", ["full_attention", "mamba", "full_attention"]),
     ["config.json", "layer_types", "mamba"]),
    ("qwen3_next: heads that do not divide", QWEN_NEXT, set_config("linear_num_key_heads", 4),
     ["config.json", "2 linear value heads", "4 key heads"]),
    ("qwen3_next: a fused projection is missing", QWEN_NEXT,
     cut_tensor("model.layers.1.linear_attn.in_proj_ba.weight"), ["in_proj_ba.weight", "missing"]),
    ("qwen3_next: a fused projection has other rows", QWEN_NEXT,
     misshape("model.layers.1.linear_attn.in_proj_qkvz.weight", [80, 96]), ["in_proj_qkvz", "160"]),
    ("glm4_moe: scores by softmax", GLM, set_config("scoring_func", "softmax"),
     ["config.json", "scoring_func", "softmax"]),
    ("glm4_moe: another choice", GLM, set_config("topk_method", "greedy"),
     ["config.json", "topk_method", "greedy"]),
    ("glm4_moe: groups that do not divide", GLM, set_config("n_group", 3),
     ["config.json", "8 experts", "3 equal groups", "n_group"]),
    ("glm4_moe: groups of one", GLM, set_config("n_group", 8), ["config.json", "n_group"]),
    ("glm4_moe: groups with too few experts", GLM, set_config("topk_group", 1),
     ["config.json", "3 experts per token", "1 of 4 groups", "topk_group"]),
    ("glm4_moe: more groups than there are", GLM, set_config("topk_group", 5),
     ["config.json", "topk_group"]),
    ("glm4_moe: no layer with experts", GLM, set_config("first_k_dense_replace", 3),
     ["config.json", "none of the 3 layers has experts"]),
    ("glm4_moe: norms that are not there", GLM, set_config("use_qk_norm", True),
     ["self_attn.q_norm.weight", "missing"]),
    ("glm4_moe: no correction", GLM, cut_tensor(CORRECTION), [CORRECTION, "missing"]),
    ("glm4_moe: no shared expert", GLM,
     cut_tensor("model.layers.2.mlp.shared_experts.up_proj.weight"),
     ["model.layers.2.mlp.shared_experts.up_proj.weight", "missing"]),
    ("glm4_moe: more layers than are announced", GLM,
     edit_config(lambda c: c.update(num_hidden_layers=2, num_nextn_predict_layers=0,
                                    first_k_dense_replace=1, intermediate_size=16)),
     ["tensor"]),
    ("mixtral: a window of nothing", MIXTRAL, set_config("sliding_window", 0),
     ["config.json", "sliding_window"]),
    ("mixtral: an expert is missing", MIXTRAL,
     cut_tensor("model.layers.1.block_sparse_moe.experts.3.w2.weight"),
     ["model.layers.1.block_sparse_moe.experts.3.w2.weight", "missing"]),
    ("mixtral: no router", MIXTRAL, cut_tensor("model.layers.0.block_sparse_moe.gate.weight"),
     ["model.layers.0.block_sparse_moe.gate.weight", "missing"]),
    ("olmoe: clipped projections", OLMOE, set_config("clip_qkv", 8.0),
     ["config.json", "clip_qkv", "8"]),
    ("olmoe: a norm of one head", OLMOE,
     edit_header(lambda h: h["model.layers.0.self_attn.k_norm.weight"].update(
         dtype="F32", shape=[30])), ["self_attn.k_norm.weight", "30", "60"]),
    ("minimax_m2: scores by softmax", MINIMAX, set_config("scoring_func", "softmax"),
     ["config.json", "scoring_func", "softmax"]),
    ("minimax_m2: no norms", MINIMAX, set_config("use_qk_norm", False),
     ["config.json", "use_qk_norm", "false"]),
    ("minimax_m2: norms of heads", MINIMAX, set_config("qk_norm_type", "per_head"),
     ["config.json", "qk_norm_type", "per_head"]),
    ("minimax_m2: no correction", MINIMAX, set_config("use_routing_bias", False),
     ["config.json", "use_routing_bias", "false"]),
    ("minimax_m2: a shared expert", MINIMAX, set_config("shared_intermediate_size", 64),
     ["config.json", "shared_intermediate_size", "64"]),
    ("minimax_m2: a layer without softmax", MINIMAX, set_config("attn_type_list", [1, 0]),
     ["config.json", "attn_type_list", "layer 1"]),
    ("minimax_m2: an odd rotation", MINIMAX, rotate(5), ["config.json", "5 rotated"]),
    ("minimax_m2: a rotation beyond the head", MINIMAX, rotate(25), ["config.json", "rotary_dim"]),
]

DEEPSEEK, GPT_OSS = harness.REFERENCES / "deepseek_v3-groups", harness.REFERENCES / "gpt_oss-tied"
LATENT_NORM = "model.layers.1.self_attn.kv_a_layernorm.weight"
SINKS, DOWN_BIAS = "model.layers.0.self_attn.sinks", "model.layers.2.mlp.experts.down_proj_bias"


def set_rope(key, value):
    return edit_config(lambda c: c["rope_parameters"].__setitem__(key, value))


LATENTS_AND_SINKS = [
    ("deepseek_v3: biases of attention", DEEPSEEK, set_config("attention_bias", True),
     ["config.json", "attention_bias", "true"]),
    ("deepseek_v3: experts in every other layer", DEEPSEEK, set_config("moe_layer_freq", 2),
     ["config.json", "moe_layer_freq"]),
    ("deepseek_v3: no rank of latents", DEEPSEEK, drop_config("kv_lora_rank"),
     ["config.json", "kv_lora_rank"]),
    ("deepseek_v3: latents of another rank", DEEPSEEK, set_config("kv_lora_rank", 20),
     ["kv_a_proj_with_mqa", "36 x 48", "32 x 48"]),
    ("deepseek_v3: values of another size", DEEPSEEK, set_config("v_head_dim", 20),
     ["kv_b_proj", "200 x 24", "180 x 24"]),
    ("deepseek_v3: a norm of latents is missing", DEEPSEEK, cut_tensor(LATENT_NORM),
     [LATENT_NORM, "missing"]),
    ("deepseek_v3: half of the key rotates", DEEPSEEK, set_rope("partial_rotary_factor", 0.5),
     ["config.json", "6 of qk_rope_head_dim 12"]),
    ("deepseek_v3: another rotation", DEEPSEEK, set_rope("rope_type", "longrope"),
     ["config.json", "rope_type", "longrope"]),
    ("deepseek_v3: queries that are not compressed", DEEPSEEK, set_config("q_lora_rank", None),
     ["self_attn.q_proj.weight", "missing"]),
    ("gpt_oss: a layer type that is not known", GPT_OSS,
     set_config("layer_types", ["full_attention", "mamba", "full_attention"]),
     ["config.json", "layer_types", "mamba"]),
    ("gpt_oss: too few layer types", GPT_OSS, set_config("layer_types", ["full_attention"]),
     ["config.json", "layer_types", "3 layers"]),
    ("gpt_oss: a window of nothing", GPT_OSS, set_config("sliding_window", 0),
     ["config.json", "sliding_window"]),
    ("gpt_oss: attention without biases", GPT_OSS, set_config("attention_bias", False),
     ["config.json", "attention_bias", "false"]),
    ("gpt_oss: sinks are missing", GPT_OSS, cut_tensor(SINKS), [SINKS, "missing"]),
    ("gpt_oss: a bias of experts is missing", GPT_OSS, cut_tensor(DOWN_BIAS),
     [DOWN_BIAS, "missing"]),
    ("gpt_oss: experts of another width", GPT_OSS, set_config("intermediate_size", 10),
     ["gate_up_proj", "6 x 56 x 40", "6 x 56 x 20"]),
]

TOKENIZERS = [
    ("there is no tokenizer.json", remove("tokenizer.json"), ["tokenizer.json"]),
    ("tokenizer.json ends early", truncate("tokenizer.json", 5000), ["tokenizer.json"]),
    ("tokenizer.json is too deep", write("tokenizer.json", nested(100000).encode()),
     ["tokenizer.json"]),
    ("tokenizer.json has no merges", edit_tokenizer(lambda t: t["model"].pop("merges")),
     ["tokenizer.json", "merges"]),
    ("tokenizer.json has no vocabulary", edit_tokenizer(lambda t: t["model"].pop("vocab")),
     ["tokenizer.json", "vocab"]),
    ("a merge makes no token", edit_tokenizer(lambda t: t["model"]["merges"].append(["zq", "qz"])),
     ["tokenizer.json", "merges"]),
    ("the model is no BPE", edit_tokenizer(lambda t: t["model"].__setitem__("type", "Unigram")),
     ["tokenizer.json", "Unigram"]),
    ("an id is given twice",
     edit_tokenizer(lambda t: t["model"]["vocab"].__setitem__("never seen", 300)),
     ["tokenizer.json", "300"]),
    ("an id is negative",
     edit_tokenizer(lambda t: t["model"]["vocab"].__setitem__("never seen", -1)),
     ["tokenizer.json"]),
    ("an id is huge",
     edit_tokenizer(lambda t: t["model"]["vocab"].__setitem__("never seen", 1 << 40)),
     ["tokenizer.json"]),
    ("the split pattern is broken",
     edit_tokenizer(lambda t: t.__setitem__("pre_tokenizer", {
         "type": "Sequence", "pretokenizers": [
             {"type": "Split", "pattern": {"Regex": "(((["}, "behavior": "Isolated"},
             {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]})),
     ["tokenizer.json"]),
    ("the pre-tokenizer is not known",
     edit_tokenizer(lambda t: t.__setitem__("pre_tokenizer", {"type": "Metaspace"})),
     ["tokenizer.json", "Metaspace"]),
]


def check_message(result, words, complaints):
    lines = result.err.splitlines()
    if result.code != 1 or result.out:
        complaints.append(f"not refused: {result!r}")
    if len(lines) != 1 or not result.err.startswith("sluice: ") or lines[0].endswith("."):
        complaints.append(f"not one sentence: {result!r}")
    for word in words:
        if word not in result.err:
            complaints.append(f"lacks '{word}': {result.err}")


def check_weights(tap, sluice):
    for name, source, damage, words in CASES + FAMILIES + LATENTS_AND_SINKS:
        with tap.case(name) as complaints, harness.temporary_folder() as folder:
            model = harness.copy_model(source, folder / "model", "reference.safetensors")
            damage(model)
            check_message(sluice.run("inspect", model), words, complaints)


def check_tokenizers(tap, sluice):
    for name, damage, words in TOKENIZERS:
        with tap.case(name) as complaints, harness.temporary_folder() as folder:
            model = harness.copy_model(harness.STORYTELLER, folder / "model",
                                       "reference.safetensors", "greedy.json")
            damage(model)
            check_message(sluice.run("tokenize", model, stdin=b"text"), words, complaints)
            check_message(sluice.run("run", model, "--prompt", "text"), words, complaints)
            # The weights are good, so ids still work.
            sluice.good("run", model, "--ids", "-", "--print-ids", "-n", 1, stdin=b"5")


def check_paths(tap, sluice):
    with tap.case("paths that are no model") as complaints, harness.temporary_folder() as folder:
        (folder / "empty").mkdir()
        (folder / "file.txt").write_text("text")
        shutil.copyfile(PLAIN / WEIGHTS, folder / WEIGHTS)
        (folder / "x.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(16))
        for path, words in (("absent", ["absent"]), ("empty", ["empty"]),
                            ("file.txt", ["file.txt", "folder"]), (WEIGHTS, [WEIGHTS, "folder"]),
                            ("x.gguf", ["x.gguf", "no tensors"])):
            check_message(sluice.run("inspect", folder / path), words, complaints)
        check_message(sluice.run("inspect", folder / "a\nb\x1b[1m"), ["a?b?[1m"], complaints)


def fill_tensor(name, pair):
    """Overwrites a 16-bit tensor with one value."""
    def apply(model):
        file = Checkpoint(model / WEIGHTS)
        begin, end = file.header[name]["data_offsets"]
        file.write(data=file.data[:begin] + pair * ((end - begin) // 2) + file.data[end:])
    return apply


def check_numbers(tap, sluice):
    with tap.case("a model whose logits are not numbers") as complaints:
        for name in (HEAD, NORM):
            with harness.temporary_folder() as folder:
                model = harness.copy_model(PLAIN, folder / "model", "reference.safetensors")
                fill_tensor(name, b"\xc0\x7f")(model)
                for args in (("run", "--print-ids"), ("run", "--print-ids", "--temperature", 0),
                             ("perplexity",)):
                    check_message(sluice.run(args[0], model, "--ids", "-", *args[1:],
                                             stdin=b"1 2 3"), ["not numbers"], complaints)


def check_copies(tap, sluice):
    """What the other cases break is good before."""
    with tap.case("copies without damage work, in shards too") as complaints:
        for source in (PLAIN, PACKED):
            with harness.temporary_folder() as folder:
                model = harness.copy_model(source, folder / "model", "reference.safetensors")
                sluice.good("inspect", model)
        with harness.temporary_folder() as folder:
            model = harness.copy_model(PLAIN, folder / "model", "reference.safetensors")
            want = sluice.logits(model, [1, 2, 3], folder).read_bytes()
            Checkpoint(model / WEIGHTS).write()
            if sluice.logits(model, [1, 2, 3], folder).read_bytes() != want:
                complaints.append("a rewritten header changes the logits")
            two_shards()(model)
            if sluice.logits(model, [1, 2, 3], folder).read_bytes() != want:
                complaints.append("two shards change the logits")


def tests(tap, sluice):
    check_copies(tap, sluice)
    check_paths(tap, sluice)
    check_weights(tap, sluice)
    check_numbers(tap, sluice)
    check_tokenizers(tap, sluice)


harness.main(tests)

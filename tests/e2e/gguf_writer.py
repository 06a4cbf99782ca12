"""Writes GGUF files: of any keys and tensors, and of Hugging Face checkpoints with float weights.

Independent of the reader in src/: the names, orders and transformations are written down here a
second time, from the layout that published files have.
"""
import json
import math
import struct

ALIGNMENT = 32
# value types of keys
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?",
           U64: "<Q", I64: "<q", F64: "<d"}
# types of tensors: name -> (number, weights of a block, bytes of a block)
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "Q8_0": (8, 32, 34),
         "MXFP4": (39, 32, 17)}
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def string(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(kind, item):
    if kind == STRING:
        return string(item)
    if kind == ARRAY:
        item_kind, items = item
        return struct.pack("<IQ", item_kind, len(items)) + b"".join(value(item_kind, i) for i in items)
    return struct.pack(FORMATS[kind], item)


class Tensor:
    """Rows of weights as bytes; shape as Hugging Face counts it, slowest first."""

    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, list(shape), bytes(data)

    def row_bytes(self):
        _, block, size = TYPES[self.dtype]
        return self.shape[-1] // block * size

    def rows(self):
        n = self.row_bytes()
        return [self.data[i:i + n] for i in range(0, len(self.data), n)]

    def floats(self):
        if self.dtype == "F32":
            return list(struct.unpack(f"<{len(self.data) // 4}f", self.data))
        if self.dtype == "F16":
            return list(struct.unpack(f"<{len(self.data) // 2}e", self.data))
        halves = struct.unpack(f"<{len(self.data) // 2}H", self.data)
        return list(struct.unpack(f"<{len(halves)}f", struct.pack(f"<{len(halves)}I",
                                                                  *(h << 16 for h in halves))))

    def mapped(self, function):
        """As F32, with function of each value."""
        values = [function(v) for v in self.floats()]
        return Tensor("F32", self.shape, struct.pack(f"<{len(values)}f", *values))

    def f32(self):
        return self.mapped(lambda v: v)

    def taking(self, rows):
        all_rows = self.rows()
        return Tensor(self.dtype, [len(rows)] + self.shape[1:], b"".join(all_rows[r] for r in rows))

    def columns(self, order):
        """The columns in another order; no blocks."""
        size = TYPES[self.dtype][2]
        rows = (b"".join(row[c * size:(c + 1) * size] for c in order) for row in self.rows())
        return Tensor(self.dtype, self.shape, b"".join(rows))

    def reshaped(self, *shape):
        return Tensor(self.dtype, shape, self.data)


def stack(tensors):
    return Tensor(tensors[0].dtype, [len(tensors)] + tensors[0].shape,
                  b"".join(t.data for t in tensors))


def mxfp4(tensor):
    """The same values, all of which MXFP4 has; codes of a block are low halves, then high ones."""
    values, data = tensor.floats(), bytearray()
    for at in range(0, len(values), 32):
        group = values[at:at + 32]
        exponent = math.frexp(max(map(abs, group)))[1] - 3
        codes = [E2M1.index(math.ldexp(abs(v), -exponent)) + 8 * (v < 0) for v in group]
        data.append(exponent + 127)
        data += bytes(a | b << 4 for a, b in zip(codes[:16], codes[16:]))
    return Tensor("MXFP4", tensor.shape, data)


def write(path, keys, tensors, version=3):
    """keys {name: (type, value)}; tensors {name: Tensor}; the order is kept."""
    directory, data = b"", b""
    for name, tensor in tensors.items():
        dims = tensor.shape[::-1]
        directory += string(name) + struct.pack("<I", len(dims))
        directory += b"".join(struct.pack("<Q", d) for d in dims)
        directory += struct.pack("<IQ", TYPES[tensor.dtype][0], len(data))
        data += tensor.data + bytes(-len(tensor.data) % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for name, (kind, item) in keys.items():
        head += string(name) + struct.pack("<I", kind) + value(kind, item)
    head += directory
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data)


def write_split(folder, stem, keys, tensors, n_parts):
    """The same in parts; returns their paths."""
    paths, names = [], list(tensors)
    for part in range(n_parts):
        own = dict(keys) if part == 0 else {}
        own.update({"split.no": (U16, part), "split.count": (U16, n_parts),
                    "split.tensors.count": (I32, len(tensors))})
        chosen = names[part * len(names) // n_parts:(part + 1) * len(names) // n_parts]
        paths.append(folder / f"{stem}-{part + 1:05}-of-{n_parts:05}.gguf")
        write(paths[-1], own, {name: tensors[name] for name in chosen})
    return paths


def read_checkpoint(folder):
    """(config of the text model, {name: Tensor}) of a Hugging Face folder."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        data = file.read_bytes()
        (n,) = struct.unpack_from("<Q", data)
        for name, entry in json.loads(data[8:8 + n]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                tensors[name] = Tensor(entry["dtype"], entry["shape"], data[8 + n + begin:8 + n + end])
    text = config.get("text_config", config)
    text.setdefault("tie_word_embeddings", config.get("tie_word_embeddings", False))
    return text, tensors


class Converter:
    """Collects the keys and tensors of one model."""

    def __init__(self, folder, architecture):
        self.config, self.source = read_checkpoint(folder)
        self.architecture = architecture
        self.keys = {"general.architecture": (STRING, architecture)}
        self.tensors = {}
        self.prefix = next(p for p in ("model.language_model.", "model.")
                           if p + "embed_tokens.weight" in self.source)

    def key(self, name, kind, item):
        self.keys[f"{self.architecture}.{name}"] = (kind, item)

    def numbers(self, names):
        """Keys that are fields of the config under another name."""
        for name, field in names.items():
            if self.config.get(field) is not None:
                self.key(name, U32, self.config[field])

    def get(self, name):
        return self.source[self.prefix + name]

    def put(self, name, tensor):
        self.tensors[name] = tensor

    def has(self, name):
        return self.prefix + name in self.source

    def norm(self, name, source):
        """Hugging Face stores the norm minus one."""
        self.put(name, self.get(source).mapped(lambda v: v + 1))

    def plain_norm(self, name, source):
        self.put(name, self.get(source).f32())

    def experts(self, layer, module, fused):
        """The routed experts of a layer, stacked; fused: gate and up in one tensor."""
        to = f"blk.{layer}.ffn_"
        if self.prefix + f"{module}.gate_up_proj" in self.source:
            both, down = self.get(f"{module}.gate_up_proj"), self.get(f"{module}.down_proj")
            n, inter, hidden = both.shape[0], both.shape[1] // 2, both.shape[2]
            rows = both.reshaped(n * 2 * inter, hidden).rows()
            halves = [[rows[e * 2 * inter + h * inter:e * 2 * inter + (h + 1) * inter]
                       for e in range(n)] for h in (0, 1)]
            gate, up = (Tensor(both.dtype, [n, inter, hidden], b"".join(sum(half, [])))
                        for half in halves)
        else:
            parts = ("gate_proj", "up_proj", "down_proj")
            if f"{self.prefix}{module}.0.w1.weight" in self.source:
                parts = ("w1", "w3", "w2")
            n = sum(name.startswith(f"{self.prefix}{module}.") and name.endswith(parts[0] + ".weight")
                    for name in self.source)
            gate, up, down = (stack([self.get(f"{module}.{e}.{p}.weight") for e in range(n)])
                              for p in parts)
        if fused:
            inter = gate.shape[1]
            pairs = [a + b for a, b in zip(
                (gate.rows()[e * inter:(e + 1) * inter] for e in range(gate.shape[0])),
                (up.rows()[e * inter:(e + 1) * inter] for e in range(gate.shape[0])))]
            self.put(to + "gate_up_exps.weight",
                     Tensor(gate.dtype, [gate.shape[0], 2 * inter, gate.shape[2]],
                            b"".join(sum(pairs, []))))
        else:
            self.put(to + "gate_exps.weight", gate)
            self.put(to + "up_exps.weight", up)
        self.put(to + "down_exps.weight", down)


def tiled(n_k, n_v):
    """The Hugging Face head at each position of the file."""
    return [p % n_k * (n_v // n_k) + p // n_k for p in range(n_v)]


def spread(order, width, first=0):
    return [first + h * width + i for h in order for i in range(width)]


def delta_net(c, layer, source):
    """The nine tensors of a DeltaNet layer, V heads tiled."""
    conf, to = c.config, f"blk.{layer}."
    n_k, n_v = conf["linear_num_key_heads"], conf["linear_num_value_heads"]
    dk, dv = conf["linear_key_head_dim"], conf["linear_value_head_dim"]
    heads = tiled(n_k, n_v)
    values = spread(heads, dv)
    channels = list(range(2 * n_k * dk)) + spread(heads, dv, 2 * n_k * dk)
    conv = c.get(source + "conv1d.weight").f32()
    c.put(to + "attn_qkv.weight", c.get(source + "in_proj_qkv.weight").taking(channels))
    c.put(to + "attn_gate.weight", c.get(source + "in_proj_z.weight").taking(values))
    c.put(to + "ssm_conv1d.weight", conv.reshaped(conv.shape[0], conv.shape[2])
          .taking(channels))
    c.put(to + "ssm_beta.weight", c.get(source + "in_proj_b.weight").taking(heads))
    c.put(to + "ssm_alpha.weight", c.get(source + "in_proj_a.weight").taking(heads))
    c.put(to + "ssm_dt.bias", c.get(source + "dt_bias").f32().reshaped(n_v, 1).taking(heads)
          .reshaped(n_v))
    c.put(to + "ssm_a", c.get(source + "A_log").mapped(lambda v: -math.exp(v)).reshaped(n_v, 1)
          .taking(heads).reshaped(n_v))
    c.put(to + "ssm_norm.weight", c.get(source + "norm.weight").f32())
    c.put(to + "ssm_out.weight", c.get(source + "out_proj.weight").columns(values))


def qwen35moe(folder, fused=False):
    """(keys, tensors) of a Qwen3.5-MoE checkpoint."""
    c = Converter(folder, "qwen35moe")
    conf = c.config
    rope = conf["rope_parameters"]
    c.numbers({
        "block_count": "num_hidden_layers", "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size", "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
        "attention.value_length": "head_dim", "expert_count": "num_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
        "ssm.conv_kernel": "linear_conv_kernel_dim", "ssm.state_size": "linear_key_head_dim",
        "ssm.group_count": "linear_num_key_heads", "ssm.time_step_rank": "linear_num_value_heads"})
    c.key("ssm.inner_size", U32, conf["linear_num_value_heads"] * conf["linear_value_head_dim"])
    c.key("attention.layer_norm_rms_epsilon", F32, conf["rms_norm_eps"])
    c.key("rope.freq_base", F32, rope["rope_theta"])
    c.key("rope.dimension_count", U32, int(conf["head_dim"] * rope["partial_rotary_factor"]))
    kinds = conf["layer_types"]
    full = [i + 1 for i, kind in enumerate(kinds) if kind == "full_attention"]
    c.key("full_attention_interval", U32, full[0] if full else len(kinds) + 1)
    c.put("token_embd.weight", c.get("embed_tokens.weight"))
    c.norm("output_norm.weight", "norm.weight")
    if not conf["tie_word_embeddings"]:
        c.put("output.weight", c.source["lm_head.weight"])
    for layer, kind in enumerate(kinds):
        at, to = f"layers.{layer}.", f"blk.{layer}."
        c.norm(to + "attn_norm.weight", at + "input_layernorm.weight")
        c.norm(to + "post_attention_norm.weight", at + "post_attention_layernorm.weight")
        if kind == "full_attention":
            for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
                c.put(f"{to}attn_{ours}.weight", c.get(f"{at}self_attn.{theirs}_proj.weight"))
            for part in "qk":
                c.norm(f"{to}attn_{part}_norm.weight", f"{at}self_attn.{part}_norm.weight")
        else:
            delta_net(c, layer, at + "linear_attn.")
        c.put(to + "ffn_gate_inp.weight", c.get(at + "mlp.gate.weight").f32())
        c.experts(layer, at + "mlp.experts", fused)
        gate = c.get(at + "mlp.shared_expert_gate.weight").f32()
        c.put(to + "ffn_gate_inp_shexp.weight", gate.reshaped(gate.shape[1]))
        for part in ("gate", "up", "down"):
            c.put(f"{to}ffn_{part}_shexp.weight", c.get(f"{at}mlp.shared_expert.{part}_proj.weight"))
    return c.keys, c.tensors


def rope_of(conf):
    return conf.get("rope_parameters") or conf.get("rope_scaling") or {}


def common_keys(c, head_dim):
    """What all but latent attention have; head_dim 0: left to the reader."""
    conf, rope = c.config, rope_of(c.config)
    c.numbers({
        "block_count": "num_hidden_layers", "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size", "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "expert_used_count": "num_experts_per_tok"})
    c.key("attention.layer_norm_rms_epsilon", F32, conf["rms_norm_eps"])
    c.key("rope.freq_base", F32, rope.get("rope_theta", conf.get("rope_theta", 10000.0)))
    if head_dim:
        c.key("attention.key_length", U32, head_dim)
        c.key("attention.value_length", U32, head_dim)
        partial = rope.get("partial_rotary_factor", conf.get("partial_rotary_factor", 1.0))
        c.key("rope.dimension_count", U32, int(head_dim * partial))
    if rope.get("rope_type") == "yarn":
        c.key("rope.scaling.type", STRING, "yarn")
        c.key("rope.scaling.factor", F32, rope["factor"])
        c.key("rope.scaling.original_context_length", U32, rope["original_max_position_embeddings"])
        # It multiplies what factor gives, where config.json's attention_factor stands instead.
        usual = 0.1 * math.log(rope["factor"]) + 1
        c.key("rope.scaling.yarn_attn_factor", F32, rope.get("attention_factor", usual) / usual)


def frame_tensors(c, norm):
    c.put("token_embd.weight", c.get("embed_tokens.weight"))
    norm("output_norm.weight", "norm.weight")
    if not c.config["tie_word_embeddings"]:
        c.put("output.weight", c.source["lm_head.weight"])


def plain_attention(c, layer, norm, pairs=False):
    """pairs: rows of q and k so that values which rotate together are neighbours."""
    at, to = f"layers.{layer}.self_attn.", f"blk.{layer}.attn_"
    for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
        tensor = c.get(f"{at}{theirs}_proj.weight")
        if pairs and ours in "qk":
            dim = c.config.get("head_dim") or c.config["hidden_size"] // c.config["num_attention_heads"]
            order = [h * dim + half * (dim // 2) + i for h in range(tensor.shape[0] // dim)
                     for i in range(dim // 2) for half in (0, 1)]
            tensor = tensor.taking(order)
        c.put(f"{to}{ours}.weight", tensor)
        if c.has(f"{at}{theirs}_proj.bias"):
            c.put(f"{to}{ours}.bias", c.get(f"{at}{theirs}_proj.bias").f32())
    for part in "qk":
        if c.has(f"{at}{part}_norm.weight"):
            norm(f"{to}{part}_norm.weight", f"{at}{part}_norm.weight")


def dense_mlp(c, layer):
    for part in ("gate", "up", "down"):
        c.put(f"blk.{layer}.ffn_{part}.weight", c.get(f"layers.{layer}.mlp.{part}_proj.weight"))


def moe(c, layer, module, fused):
    at, to = f"layers.{layer}.{module}", f"blk.{layer}."
    c.put(to + "ffn_gate_inp.weight", c.get(at + ".gate.weight").f32())
    if c.has(at + ".gate.e_score_correction_bias"):
        c.put(to + "exp_probs_b.bias", c.get(at + ".gate.e_score_correction_bias").f32())
    if c.has(at + ".e_score_correction_bias"):
        c.put(to + "exp_probs_b.bias", c.get(at + ".e_score_correction_bias").f32())
    c.experts(layer, at + ".experts", fused)
    for name in ("shared_expert", "shared_experts"):
        if c.has(f"{at}.{name}.up_proj.weight"):
            for part in ("gate", "up", "down"):
                c.put(f"{to}ffn_{part}_shexp.weight", c.get(f"{at}.{name}.{part}_proj.weight"))
    if c.has(at + ".shared_expert_gate.weight"):
        gate = c.get(at + ".shared_expert_gate.weight").f32()
        c.put(to + "ffn_gate_inp_shexp.weight", gate.reshaped(gate.shape[1]))


def head_dim_of(conf):
    return conf.get("head_dim") or conf["hidden_size"] // conf["num_attention_heads"]


def expert_keys(c, inter):
    conf = c.config
    n = next(conf[f] for f in ("num_experts", "num_local_experts", "n_routed_experts") if conf.get(f))
    c.key("expert_count", U32, n)
    c.numbers({inter: "moe_intermediate_size" if "moe_intermediate_size" in conf else "intermediate_size"})


def qwen3moe(folder, fused=False):
    """(keys, tensors) of a Qwen3-MoE checkpoint without dense layers."""
    c = Converter(folder, "qwen3moe")
    common_keys(c, head_dim_of(c.config))
    expert_keys(c, "expert_feed_forward_length")
    frame_tensors(c, c.plain_norm)
    for layer in range(c.config["num_hidden_layers"]):
        at, to = f"layers.{layer}.", f"blk.{layer}."
        c.plain_norm(to + "attn_norm.weight", at + "input_layernorm.weight")
        c.plain_norm(to + "ffn_norm.weight", at + "post_attention_layernorm.weight")
        plain_attention(c, layer, c.plain_norm)
        moe(c, layer, "mlp", fused)
    return c.keys, c.tensors


def qwen3next(folder, fused=False):
    """(keys, tensors) of a Qwen3-Next checkpoint without dense layers; fused: DeltaNet's, too."""
    c = Converter(folder, "qwen3next")
    conf = c.config
    common_keys(c, head_dim_of(conf))
    expert_keys(c, "expert_feed_forward_length")
    c.numbers({
        "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
        "ssm.conv_kernel": "linear_conv_kernel_dim", "ssm.state_size": "linear_key_head_dim",
        "ssm.group_count": "linear_num_key_heads", "ssm.time_step_rank": "linear_num_value_heads"})
    c.key("ssm.inner_size", U32, conf["linear_num_value_heads"] * conf["linear_value_head_dim"])
    if not conf["norm_topk_prob"]:
        c.key("expert_weights_norm", BOOL, False)
    c.key("full_attention_interval", U32, conf["layer_types"].index("full_attention") + 1)
    frame_tensors(c, c.norm)
    for layer, kind in enumerate(conf["layer_types"]):
        at, to = f"layers.{layer}.", f"blk.{layer}."
        c.norm(to + "attn_norm.weight", at + "input_layernorm.weight")
        c.norm(to + "post_attention_norm.weight", at + "post_attention_layernorm.weight")
        if kind == "full_attention":
            plain_attention(c, layer, c.norm)
        else:
            grouped_delta_net(c, layer, at + "linear_attn.", fused)
        moe(c, layer, "mlp", fused)
    return c.keys, c.tensors


def grouped_delta_net(c, layer, source, fused):
    """Value heads in Hugging Face's order; q, k, v, z of a key head are neighbours in its matrix."""
    conf, to = c.config, f"blk.{layer}."
    n_k, n_v = conf["linear_num_key_heads"], conf["linear_num_value_heads"]
    dk, dv = conf["linear_key_head_dim"], conf["linear_value_head_dim"] * n_v // n_k
    all_of_head = 2 * dk + 2 * dv
    stack_ = c.get(source + "in_proj_qkvz.weight")
    if fused:
        c.put(to + "ssm_in.weight", stack_)
    else:
        def part(first, width):
            return [h * all_of_head + first + i for h in range(n_k) for i in range(width)]
        c.put(to + "attn_qkv.weight", stack_.taking(part(0, dk) + part(dk, dk) + part(2 * dk, dv)))
        c.put(to + "attn_gate.weight", stack_.taking(part(2 * dk + dv, dv)))
    conv = c.get(source + "conv1d.weight").f32()
    c.put(to + "ssm_conv1d.weight", conv.reshaped(conv.shape[0], conv.shape[2]))
    c.put(to + "ssm_ba.weight", c.get(source + "in_proj_ba.weight"))
    c.put(to + "ssm_dt.bias", c.get(source + "dt_bias").f32())
    c.put(to + "ssm_a", c.get(source + "A_log").mapped(lambda v: -math.exp(v)))
    c.put(to + "ssm_norm.weight", c.get(source + "norm.weight").f32())
    c.put(to + "ssm_out.weight", c.get(source + "out_proj.weight"))


def glm4moe(folder, fused=False):
    """(keys, tensors) of a GLM-4.5 checkpoint."""
    c = Converter(folder, "glm4moe")
    conf = c.config
    common_keys(c, head_dim_of(conf))
    expert_keys(c, "expert_feed_forward_length")
    c.numbers({"feed_forward_length": "intermediate_size", "expert_shared_count": "n_shared_experts",
               "leading_dense_block_count": "first_k_dense_replace", "expert_group_count": "n_group",
               "expert_group_used_count": "topk_group"})
    c.key("expert_weights_scale", F32, conf["routed_scaling_factor"])
    c.key("expert_weights_norm", BOOL, conf["norm_topk_prob"])
    c.key("expert_gating_func", U32, 2)
    frame_tensors(c, c.plain_norm)
    for layer in range(conf["num_hidden_layers"]):
        at, to = f"layers.{layer}.", f"blk.{layer}."
        c.plain_norm(to + "attn_norm.weight", at + "input_layernorm.weight")
        c.plain_norm(to + "post_attention_norm.weight", at + "post_attention_layernorm.weight")
        plain_attention(c, layer, c.plain_norm)
        if layer < conf["first_k_dense_replace"]:
            dense_mlp(c, layer)
        else:
            moe(c, layer, "mlp", fused)
    return c.keys, c.tensors


def llama(folder, fused=False):
    """(keys, tensors) of a Mixtral checkpoint."""
    c = Converter(folder, "llama")
    common_keys(c, head_dim_of(c.config))
    expert_keys(c, "feed_forward_length")
    c.numbers({"attention.sliding_window": "sliding_window"})
    return simple_layers(c, "block_sparse_moe", fused, pairs=True)


def olmoe(folder, fused=False):
    """(keys, tensors) of an OLMoE checkpoint; the size of heads is left to the reader."""
    c = Converter(folder, "olmoe")
    common_keys(c, 0)
    expert_keys(c, "feed_forward_length")
    return simple_layers(c, "mlp", fused)


def minimax_m2(folder, fused=False):
    """(keys, tensors) of a MiniMax-M2 checkpoint."""
    c = Converter(folder, "minimax-m2")
    common_keys(c, head_dim_of(c.config))
    expert_keys(c, "expert_feed_forward_length")
    c.key("rope.dimension_count", U32, c.config["rotary_dim"])
    c.key("expert_gating_func", U32, 2)
    return simple_layers(c, "block_sparse_moe", fused)


def simple_layers(c, module, fused, pairs=False):
    frame_tensors(c, c.plain_norm)
    for layer in range(c.config["num_hidden_layers"]):
        at, to = f"layers.{layer}.", f"blk.{layer}."
        c.plain_norm(to + "attn_norm.weight", at + "input_layernorm.weight")
        c.plain_norm(to + "ffn_norm.weight", at + "post_attention_layernorm.weight")
        plain_attention(c, layer, c.plain_norm, pairs)
        moe(c, layer, module, fused)
    return c.keys, c.tensors


def columns_of(matrix, chosen):
    """The chosen columns of BF16 rows, as rows."""
    rows = matrix.rows()
    data = b"".join(row[2 * c:2 * c + 2] for c in chosen for row in rows)
    return Tensor(matrix.dtype, [len(chosen), matrix.shape[0]], data)


def deepseek2(folder, fused=False, joint=False):
    """(keys, tensors) of a DeepSeek-V3 checkpoint; joint: keys and values of heads in one matrix."""
    c = Converter(folder, "deepseek2")
    conf, rope = c.config, rope_of(c.config)
    common_keys(c, 0)
    expert_keys(c, "expert_feed_forward_length")
    c.numbers({
        "feed_forward_length": "intermediate_size", "expert_shared_count": "n_shared_experts",
        "leading_dense_block_count": "first_k_dense_replace", "expert_group_count": "n_group",
        "expert_group_used_count": "topk_group", "attention.q_lora_rank": "q_lora_rank",
        "attention.kv_lora_rank": "kv_lora_rank", "rope.dimension_count": "qk_rope_head_dim"})
    c.key("expert_weights_scale", F32, conf["routed_scaling_factor"])
    c.key("expert_weights_norm", BOOL, conf["norm_topk_prob"])
    c.key("expert_gating_func", U32, 2)
    nope, dv, rank = conf["qk_nope_head_dim"], conf["v_head_dim"], conf["kv_lora_rank"]
    key = nope + conf["qk_rope_head_dim"]
    c.key("attention.key_length", U32, key if joint else rank + conf["qk_rope_head_dim"])
    c.key("attention.value_length", U32, dv if joint else rank)
    if not joint:
        c.key("attention.head_count_kv", U32, 1)
        c.key("attention.key_length_mla", U32, key)
        c.key("attention.value_length_mla", U32, dv)
    if rope.get("mscale_all_dim"):
        c.key("rope.scaling.yarn_log_multiplier", F32, 0.1 * rope["mscale_all_dim"])
    frame_tensors(c, c.plain_norm)
    for layer in range(conf["num_hidden_layers"]):
        at, to = f"layers.{layer}.", f"blk.{layer}."
        c.plain_norm(to + "attn_norm.weight", at + "input_layernorm.weight")
        c.plain_norm(to + "ffn_norm.weight", at + "post_attention_layernorm.weight")
        latent_attention(c, at + "self_attn.", to + "attn_", joint)
        if layer < conf["first_k_dense_replace"]:
            dense_mlp(c, layer)
        else:
            moe(c, layer, "mlp", fused)
    return c.keys, c.tensors


def latent_attention(c, at, to, joint):
    names = {"q": "q_proj", "q_a": "q_a_proj", "q_b": "q_b_proj", "kv_a_mqa": "kv_a_proj_with_mqa",
             "output": "o_proj"}
    for ours, theirs in names.items():
        if c.has(f"{at}{theirs}.weight"):
            c.put(f"{to}{ours}.weight", c.get(f"{at}{theirs}.weight"))
    for part in ("q_a", "kv_a"):
        if c.has(f"{at}{part}_layernorm.weight"):
            c.plain_norm(f"{to}{part}_norm.weight", f"{at}{part}_layernorm.weight")
    both = c.get(at + "kv_b_proj.weight")
    if joint:
        c.put(to + "kv_b.weight", both)
        return
    nope, dv, rank = (c.config[f] for f in ("qk_nope_head_dim", "v_head_dim", "kv_lora_rank"))
    heads = [h * (nope + dv) for h in range(c.config["num_attention_heads"])]
    keys = [columns_of(both.taking(range(h, h + nope)), range(rank)) for h in heads]
    c.put(to + "k_b.weight", stack(keys))
    c.put(to + "v_b.weight", stack([both.taking(range(h + nope, h + nope + dv)) for h in heads]))


def deepseek2_joint(folder, fused=False):
    return deepseek2(folder, fused, joint=True)


def gpt_oss(folder, fused=False):
    """(keys, tensors) of a GPT-OSS checkpoint in BF16; gate and up are never one tensor here."""
    c = Converter(folder, "gpt-oss")
    common_keys(c, head_dim_of(c.config))
    expert_keys(c, "expert_feed_forward_length")
    c.numbers({"attention.sliding_window": "sliding_window"})
    frame_tensors(c, c.plain_norm)
    for layer in range(c.config["num_hidden_layers"]):
        at, to = f"layers.{layer}.", f"blk.{layer}."
        c.plain_norm(to + "attn_norm.weight", at + "input_layernorm.weight")
        c.plain_norm(to + "post_attention_norm.weight", at + "post_attention_layernorm.weight")
        plain_attention(c, layer, c.plain_norm)
        c.put(to + "attn_sinks.weight", c.get(at + "self_attn.sinks").f32())
        c.put(to + "ffn_gate_inp.weight", c.get(at + "mlp.router.weight").f32())
        c.put(to + "ffn_gate_inp.bias", c.get(at + "mlp.router.bias").f32())
        biased_experts(c, at + "mlp.experts.", to + "ffn_")
    return c.keys, c.tensors


def biased_experts(c, at, to):
    """Published with inputs for rows, and columns of gate and up in turns."""
    both, down = c.get(at + "gate_up_proj"), c.get(at + "down_proj")
    n, hidden, width = both.shape
    inter = width // 2
    def of(tensor, expert):
        rows = tensor.rows()[expert * tensor.shape[1]:(expert + 1) * tensor.shape[1]]
        return Tensor(tensor.dtype, tensor.shape[1:], b"".join(rows))
    biases = c.get(at + "gate_up_proj_bias").f32().floats()
    for first, name in enumerate(("gate", "up")):
        c.put(f"{to}{name}_exps.weight",
              stack([columns_of(of(both, e), range(first, width, 2)) for e in range(n)]))
        values = [biases[e * width + i] for e in range(n) for i in range(first, width, 2)]
        c.put(f"{to}{name}_exps.bias",
              Tensor("F32", [n, inter], struct.pack(f"<{len(values)}f", *values)))
    c.put(to + "down_exps.weight",
          stack([columns_of(of(down, e), range(hidden)) for e in range(n)]))
    c.put(to + "down_exps.bias", c.get(at + "down_proj_bias").f32())

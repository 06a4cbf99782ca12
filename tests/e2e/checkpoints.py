"""Safetensors checkpoints as tensors of bytes, for tests that rewrite them."""
import json
import struct

WEIGHTS = "model.safetensors"


def read(path):
    """{name: (dtype, shape, bytes)}"""
    data = path.read_bytes()
    (n,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {name: (e["dtype"], e["shape"], data[8 + n + e["data_offsets"][0]:8 + n + e["data_offsets"][1]])
            for name, e in header.items()}


def write(path, tensors, form):
    """form: what made the file, "pt" or "mlx"."""
    header, data = {"__metadata__": {"format": form}}, bytearray()
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_model(model, source, tensors, form="pt", **config):
    """A folder like source with other tensors and some other fields, None: without it."""
    model.mkdir()
    fields = json.loads((source / "config.json").read_text()) | config
    (model / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    write(model / WEIGHTS, tensors, form)
    return model


def f32(shape, values):
    return ("F32", shape, struct.pack(f"<{len(values)}f", *values))

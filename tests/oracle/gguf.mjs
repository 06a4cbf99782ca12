// A vocabulary-only GGUF file of a tokenizer.json with SentencePiece's BPE.

function u32(n) {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
}

function u64(n) {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(n));
  return b;
}

function f32(x) {
  const b = Buffer.alloc(4);
  b.writeFloatLE(x);
  return b;
}

function string(s) {
  const bytes = Buffer.from(s);
  return Buffer.concat([u64(bytes.length), bytes]);
}

const key = (name, type, value) => Buffer.concat([string(name), u32(type), value]);
const array = (name, type, items) => key(name, 9, Buffer.concat([u32(type), u64(items.length), ...items]));

// Scores fall as SentencePiece's do: those of merged tokens in the order of the merges.
export function sentencePieceGguf(json) {
  const { vocab, merges } = json.model;
  const tokens = [], types = [], scores = [];
  const special = new Set(json.added_tokens.map((t) => t.id));
  for (const [text, id] of Object.entries(vocab)) {
    tokens[id] = text;
    types[id] = special.has(id) ? 3 : /^<0x[0-9A-F]{2}>$/.test(text) ? 6 : 1;
    scores[id] = -1e6;
  }
  let score = 0;
  for (const merge of merges) {
    const id = vocab[Array.isArray(merge) ? merge.join("") : merge.replace(" ", "")];
    if (scores[id] === -1e6) scores[id] = score--;
  }
  const keys = [
    key("general.architecture", 8, string("llama")), key("tokenizer.ggml.model", 8, string("llama")),
    array("tokenizer.ggml.tokens", 8, tokens.map(string)), array("tokenizer.ggml.scores", 6, scores.map(f32)),
    array("tokenizer.ggml.token_type", 5, types.map(u32)), key("tokenizer.ggml.bos_token_id", 4, u32(1)),
  ];
  return Buffer.concat([Buffer.from("GGUF"), u32(3), u64(0), u64(keys.length), ...keys]);
}

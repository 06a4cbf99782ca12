// Deterministic texts that tokenizers get wrong: scripts, code, emoji, marks, blanks, tokens' look-alikes.

// mulberry32: the same numbers on every machine.
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

const below = (rng, n) => rng() % n;
const pick = (rng, list) => list[below(rng, list.length)];

const sentences = [
  "The quick brown fox jumps over the lazy dog, doesn't it? I'LL say it'd be WE'RE they've I'm.",
  "Der Zwölf-Boxkämpfer jagt Viktor quer über den großen Sylter Deich; „Übermut“ – nein!",
  "Le cœur a ses raisons que la raison ne connaît point : l'été, déjà vu, garçon.",
  "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío. ¿Qué? ¡Sí!",
  "Съешь же ещё этих мягких французских булок, да выпей чаю. Ёлка й ї.",
  "我能吞下玻璃而不伤身体。今天是2024年12月31日，价格￥１２３．４５。",
  "いろはにほへと ちりぬるを。カタカナとひらがな、ガギグゲゴ、ｶﾞｷﾞｸﾞ。",
  "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 각",
  "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق ١٢٣",
  "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה. שָׁלוֹם",
  "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले १२३",
  "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓",
  "Ο καλύμνιος σφουγγαράς ψιθύρισε πως θα βουτήξει χωρίς να διστάζει. ΐ ώ",
  "Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau.",
  "Pchnąć w tę łódź jeża lub ośm skrzyń fig. Příliš žluťoučký kůň úpěl ďábelské ódy.",
  "int main(void)\n{\n\tfor (int i = 0; i < 10; i++) {\n\t\tprintf(\"%d\\n\", i);\n\t}\n    return 0;\n}\n",
  "def f(x):\n    return {k: v for k, v in x.items() if v != None}  # comment\n\n\n",
  "const x = async () => { await fetch(`https://example.org/?q=${a}&b=1`); };\r\n\r\n",
  "<html>\n  <body class=\"a b\">&nbsp;&amp;</body>\n</html>",
  "SELECT * FROM t WHERE a>=1 AND b<>'x''y' -- 1000000 12345678901234567890 3.14159e-10",
  "# Title\n\n* item 1\n* item 2\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```c\nx\n```\n",
  "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β = ¬(¬α ∨ β), ∮E·da = Q, n → ∞, ∑ f(i) = ∏ g(i)",
  "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ❤️‍🔥 🧑🏿‍🚀 ☺️ 1️⃣ #️⃣ 🫠🪿",
  "Z̸̢̛a̵̡l̶g̴o̷̧ t̸e̵x̶t̴ ñ n\u0303 é e\u0301 ạ̈ a\u0308\u0323 a\u0323\u0308 Å Å Ω Ω",
];

const blanks = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\u0085", "\u00a0", "\u1680",
  "\u180e", "\u2000", "\u2003", "\u200a", "\u200b", "\u200c", "\u200d", "\u2028", "\u2029", "\u202f",
  "\u205f", "\u2060", "\u3000", "\ufeff", "\u001c", "\u001f", "\u0000", "\u00ad", "\n\n\n", "        "];
const marks = ["\u0300", "\u0301", "\u0303", "\u0308", "\u0323", "\u0327", "\u0338", "\u0345", "\u05b0",
  "\u093c", "\u09be", "\u0e38", "\u3099", "\u309a", "\u11a8", "\u1161", "\u20d0", "\ufe0f", "\u{1d165}"];
const bases = ["a", "e", "o", "A", "u", "ſ", "が", "か", "각", "ᄀ", "가", "α", "क", "Å", "\u2126", "\u212a",
  "\u0344", "\u0958", "\u2adc", "\ufb1d", "\uf900", "\u{2f800}", "\u0340", "\u0374", "\u037e", "\u1fef"];
const numbers = ["0", "12", "123", "1234", "1234567", "1,234.5", "٣٤٥", "१२", "Ⅳ", "½", "²", "①", "𝟙𝟚", "１２"];
const clitics = ["'s", "'S", "'ll", "'LL", "'Ll", "'re", "'d", "'t", "'m", "'ve", "'x", "''", "’s", "'é"];
const symbols = [..."!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~§°±¶·×÷€£¥₿™©®…–—“”„«»¿¡※→⇒∎□"];
const words = ["hello", " world", "Straße", " naïve", "日本", "語", "Привет", "مرحبا", " foo_bar", "camelCase",
  " HTTP2", "x1y2", "IJ", "ǆ", "ß", "ﬁ", "_", "__init__", " ", "e.g.", "…"];

const mix = [blanks, bases, marks, numbers, clitics, symbols, words, sentences];

// Texts that look like the tokens in `specials`, whole and broken.
function lookAlike(rng, specials) {
  const token = pick(rng, specials);
  switch (below(rng, 6)) {
    case 0: return token;
    case 1: return token + token;
    case 2: return token.slice(0, -1);
    case 3: return token.slice(1);
    case 4: return " " + token + " ";
    default: return token.toUpperCase();
  }
}

function randomText(rng, specials, points) {
  let text = "";
  const kind = below(rng, 5);
  for (let i = 1 + below(rng, kind === 0 ? 4 : 24); i > 0; i--) {
    const what = below(rng, 12);
    if (kind === 4 || what === 0) text += String.fromCodePoint(pick(rng, points));
    else if (what === 1) text += lookAlike(rng, specials);
    else text += pick(rng, mix[below(rng, what < 10 ? mix.length - 1 : mix.length)]);
  }
  return text;
}

function randomBytes(rng) {
  const bytes = new Uint8Array(1 + below(rng, 40));
  const biased = below(rng, 2);
  for (let i = 0; i < bytes.length; i++)
    bytes[i] = biased && below(rng, 3) ? pick(rng, [0xe4, 0xb8, 0xad, 0xf0, 0x9f, 0x98, 0x80, 0xc3, 0xed, 0xa0, 0x20])
      : below(rng, 256);
  return bytes;
}

// n texts as bytes; some are not UTF-8. points: the code points to draw from.
export function samples(n, seed, specials, points) {
  const rng = generator(seed);
  const encode = (text) => new TextEncoder().encode(text);
  const list = [new Uint8Array(0), ...sentences.map(encode), ...blanks.map(encode)];
  for (const a of blanks) for (const b of ["a", "1", ".", "\n", " "]) list.push(encode(a + b), encode(b + a + a + b));
  for (const a of bases) for (const b of marks) list.push(encode(a + b), encode(`x ${a}${pick(rng, marks)}${b}y`));
  list.push(encode("a".repeat(5000)), encode(" ".repeat(3000) + "x"), encode("ab".repeat(2000)));
  list.push(encode("\u0323\u0301".repeat(300)), encode(sentences.join("\n").repeat(3)));
  while (list.length < n) list.push(below(rng, 8) ? encode(randomText(rng, specials, points)) : randomBytes(rng));
  return list;
}

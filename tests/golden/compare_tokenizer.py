#!/usr/bin/env python3
"""Compare `decalign tokenize` with Hugging Face's BertTokenizer. Needs transformers (and numpy for --mosi).

    compare_tokenizer.py --binary build/decalign --pretrained DIR [--mosi mosi.npz] [--lines 100000]
    compare_tokenizer.py --binary build/decalign --code-points      every code point between two letters, four settings
    compare_tokenizer.py --write tests/golden/wordpiece             the small vocabulary and lines of tests/test_wordpiece.cpp

DIR holds vocab.txt and tokenizer_config.json. Code points whose properties differ between the two sides' Unicode versions
are found first, with a vocabulary that has every code point as a token; generated lines have none of them. Exit status 1 if
a line differs.
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SETTINGS = [
    {"do_lower_case": True},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
]

# Ranges of code points, first and last.
BLOCKS = {
    "ascii": [(0x20, 0x7E)],
    "latin": [(0xA1, 0x24F), (0x1E00, 0x1EFF)],
    "greek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "cyrillic": [(0x400, 0x52F)],
    "armenian": [(0x531, 0x58A)],
    "hebrew": [(0x591, 0x5F4)],
    "arabic": [(0x600, 0x6FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF)],
    "indic": [(0x900, 0xDFF)],
    "thai": [(0xE01, 0xE5B), (0xE81, 0xEDF)],
    "tibetan": [(0xF00, 0xFDA)],
    "georgian": [(0x10A0, 0x10FF), (0x1C90, 0x1CBF)],
    "hangul": [(0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x3130, 0x318E)],
    "kana": [(0x3040, 0x30FF), (0xFF61, 0xFF9F)],
    "han": [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2B740, 0x2CEAF), (0x2F800, 0x2FA1F)],
    "marks": [(0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0xFE20, 0xFE2F), (0x1D165, 0x1D1AD), (0x302A, 0x302F)],
    "punctuation": [(0x2000, 0x206F), (0x2E00, 0x2E5D), (0x3000, 0x303F), (0xFE10, 0xFE6F), (0xFF01, 0xFF60)],
    "symbols": [(0x20A0, 0x20C0), (0x2100, 0x2BFF), (0x1D400, 0x1D7FF)],
    "emoji": [(0x1F000, 0x1FAFF), (0x1F1E6, 0x1F1FF)],
    "emoji_parts": [(0x200D, 0x200D), (0xFE0E, 0xFE0F), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F)],
    "control": [(0x0, 0x9), (0xB, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x200B, 0x200F), (0x2028, 0x202F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFD)],
    "private": [(0xE000, 0xF8FF), (0xF0000, 0xF00FF), (0x10FF00, 0x10FFFD)],
    "edges": [(0xD7A4, 0xD7FF), (0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF), (0x1FFFE, 0x20001), (0x10FFFE, 0x10FFFF)],
    "anything": [(0x0, 0x9), (0xB, 0xD7FF), (0xE000, 0x10FFFF)],
    "lower_planes": [(0x80, 0x2FFF), (0xA000, 0xABFF), (0x10000, 0x11FFF), (0x16800, 0x16FFF), (0x1E000, 0x1EFFF)],
}
WORDS = ("the a movie film actor i you he she it's don't very unbelievable acting um uh GREAT Worst naïve café İstanbul ΟΔΥΣΣΕΥΣ ẞ "
         "Straße Москва ёлка 我 喜欢 这部 电影 映画 がくせい パーティー 한국어 영화 שלום سلام हिन्दी ไทย 👨‍👩‍👧‍👦 🏳️‍🌈 e\u0301 ǅ ﬁ Å K 3.14 1,000 x² #tag "
         "@you http://a.b/c?d=e [SEP] [CLS] [MASK] [UNK] [PAD] [sep] [ [[SEP]] [MASK]s [UNUSED] ##ing").split()


def draw(rng, kind):
    first, last = rng.choice(BLOCKS[kind])
    return chr(rng.randint(first, last))


def make_line(rng, pick=draw):
    kinds, parts = list(BLOCKS), []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(WORDS))
        elif kind < 0.75:  # a word of one script, marks in between
            block = rng.choice(kinds)
            parts.append("".join(pick(rng, "marks" if rng.random() < 0.15 else block) for _ in range(rng.randint(1, 8))))
        elif kind < 0.97:  # anything together
            parts.append("".join(pick(rng, rng.choice(kinds)) for _ in range(rng.randint(1, 6))))
        else:  # around the limit of 100 characters
            parts.append(pick(rng, rng.choice(["latin", "ascii", "hangul"])) * rng.randint(95, 103))
    return rng.choice(["", " ", "", "\t"]) + rng.choice([" ", " ", "", "\u3000", "\u00a0", "-"]).join(parts).replace("\n", " ")


def ours(binary, folder, lines):
    with tempfile.NamedTemporaryFile("wb", suffix=".txt") as f:
        f.write("".join(line + "\n" for line in lines).encode())
        f.flush()
        out = subprocess.run([binary, "tokenize", "--pretrained", folder, "--lines", f.name], check=True, capture_output=True, text=True)
    return [[int(i) for i in line.split()] for line in out.stdout.splitlines()]


def fast(folder):
    from transformers import BertTokenizer

    folder = Path(folder)
    config = folder / "tokenizer_config.json"
    config = json.loads(config.read_text()) if config.exists() else {}
    config = {k: v for k, v in config.items() if k in ("do_lower_case", "strip_accents", "tokenize_chinese_chars")}
    return BertTokenizer(str(folder / "vocab.txt"), **config)


def encode(tokenizer, lines):
    return tokenizer(lines, add_special_tokens=True, return_attention_mask=False, return_token_type_ids=False, verbose=False)["input_ids"]


def write_folder(folder, tokens, settings):
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "vocab.txt").write_bytes("".join(t + "\n" for t in tokens).encode())
    (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings))


def code_points(binary):
    """{code point: indices of SETTINGS} where the two differ, with a vocabulary of every code point as a token."""
    every = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and c != 0xA]
    tokens = [chr(c) for c in every if chr(c).strip()]
    lines = [f"a{chr(c)}b" for c in every]
    different = {}
    for index, settings in enumerate(SETTINGS):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(folder, SPECIAL + tokens + ["##" + t for t in tokens], settings)
            mine = ours(binary, folder, lines)
            tokenizer = fast(folder)
            for at in range(0, len(every), 20000):
                theirs = encode(tokenizer, lines[at : at + 20000])
                for c, a, b in zip(every[at : at + 20000], mine[at : at + 20000], theirs):
                    if a != b:
                        different.setdefault(c, []).append(index)
    return different


def ranges(codes):
    out = []
    for c in sorted(codes):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return " ".join(f"{a:04X}" if a == b else f"{a:04X}-{b:04X}" for a, b in out)


def compare(name, binary, folder, lines):
    mine, theirs = ours(binary, folder, lines), encode(fast(folder), lines)
    assert len(mine) == len(lines) == len(theirs), (len(mine), len(lines))
    unequal = [i for i in range(len(lines)) if mine[i] != theirs[i]]
    unknown = sum(ids.count(100) for ids in theirs)
    print(f"{name}: {len(lines) - len(unequal)} of {len(lines)} lines equal ({sum(map(len, theirs))} ids, {unknown} of them 100)")
    for i in unequal[:5]:
        print(f"  {lines[i]!r}\n  ours   {mine[i]}\n  theirs {theirs[i]}")
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    slow = BertTokenizerLegacy(str(Path(folder) / "vocab.txt"))
    other = sum(slow(line, verbose=False)["input_ids"] != ids for line, ids in zip(lines, theirs))
    print(f"  (Hugging Face's own Python tokenizer, BertTokenizerLegacy, differs on {other} of them)", flush=True)
    return not unequal


def stable(c):
    """Assigned the same in Unicode 3.2 and now, or never to be assigned: no version of a library matters."""
    code = ord(c)
    if 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE or 0x1F600 <= code <= 0x1F64F:
        return True
    old, new = unicodedata.ucd_3_2_0.category(c), unicodedata.category(c)
    return old == new != "Cn" and unicodedata.ucd_3_2_0.normalize("NFD", c) == unicodedata.normalize("NFD", c)


def write_seeds(folder):
    import tokenizers
    import transformers

    rng = random.Random(3)

    def pick(rng, kind):
        while True:
            c = draw(rng, kind)
            if stable(c):
                return c

    lines = [make_line(rng, pick) for _ in range(75 * len(SETTINGS))]
    lines = [line[:120] if rng.random() < 0.9 else line for line in lines]
    texts = " ".join(lines)
    variants = texts + unicodedata.normalize("NFD", texts)
    letters = sorted({c for c in variants + variants.lower() if c.strip() and rng.random() < 0.7 and unicodedata.category(c) not in ("Cc", "Cf", "Co")})
    pieces = ("the movie film act actor great worst un believ able nai naive cafe is tan bul st str a i you he she it very don t s "
              "москва елка κοσμος ##ing ##able ##or ##ve ##e ##s ##ια ##σ ##ς").split()
    tokens = list(dict.fromkeys(SPECIAL + pieces + letters + ["##" + c for c in letters if rng.random() < 0.6]))
    cases = []
    for index, settings in enumerate(SETTINGS):
        write_folder(folder, tokens, settings)
        part = lines[index * 75 : (index + 1) * 75]
        cases.append({"options": settings, "lines": [{"text": t, "ids": i} for t, i in zip(part, encode(fast(folder), part))]})
    (Path(folder) / "tokenizer_config.json").unlink()
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    dump = lambda x: json.dumps(x, separators=(",", ":"))
    blocks = [f'{{"options":{dump(c["options"])},"lines":[\n' + ",\n".join(map(dump, c["lines"])) + "\n]}" for c in cases]
    (Path(folder) / "lines.json").write_text(f'{{"versions":{dump(versions)},"cases":[\n' + ",\n".join(blocks) + "\n]}\n")
    unknown = sum(l["ids"].count(1) for c in cases for l in c["lines"])
    print(f"{len(tokens)} tokens, {len(lines)} lines, {sum(len(l['ids']) for c in cases for l in c['lines'])} ids, {unknown} of them [UNK]")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="build/decalign")
    parser.add_argument("--pretrained", metavar="DIR")
    parser.add_argument("--mosi", metavar="NPZ")
    parser.add_argument("--lines", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--code-points", action="store_true")
    parser.add_argument("--write", metavar="DIR")
    args = parser.parse_args()
    if args.write:
        write_seeds(args.write)
        return
    known = code_points(args.binary)
    print(f"{len(known)} code points differ: {ranges(known)}")
    if args.code_points:
        for pattern in sorted(set(map(tuple, known.values()))):
            group = [c for c, p in known.items() if tuple(p) == pattern]
            print(f"  settings {pattern}: {len(group)}: {ranges(group)}")
        return
    ok = True
    if args.mosi:
        import numpy as np

        packed = np.load(args.mosi)
        lines = [t.decode() for split in ("train", "valid", "test") for t in packed[f"{split}_text"]]
        ok &= compare("mosi", args.binary, args.pretrained, lines)
    rng = random.Random(args.seed)

    def pick(rng, kind):
        while ord(c := draw(rng, kind)) in known or 0xD800 <= ord(c) <= 0xDFFF:
            pass
        return c

    lines = [make_line(rng, pick) for _ in range(args.lines)]
    ok &= compare("generated", args.binary, args.pretrained, lines)
    sys.exit(not ok)


if __name__ == "__main__":
    main()

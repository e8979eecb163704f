#!/usr/bin/env python3
"""Records tests/data/tokenizer/: small tokenizers, and what the reference packages make of texts.

  pip install tokenizers sentencepiece && tools/make_tokenizer_vectors.py

Trains a byte-level and a Llama-form BPE vocabulary and two SentencePiece models on the generations
in tests/data/eval/reference.json and a few lines in other scripts, then writes
  byte_base.json, llama_base.json   tokenizer.json documents that the variants are made of
  unigram.model, bpe.model          SentencePiece models
  vectors.json                      per tokenizer: texts with ids and decoded texts
"""
import json
import pathlib
import sys
import tempfile

import sentencepiece
import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/data/tokenizer"
sys.path.insert(0, str(ROOT / "tests/tokenizer"))
import variants as v  # noqa: E402

OTHER = [
    "\u0421\u0442\u0430\u0440\u0438\u043a \u0438 \u043c\u043e\u0440\u0435. \u0421\u0442\u0430\u0440\u0438\u043a \u043f\u043e\u0441\u043c\u043e\u0442\u0440\u0435\u043b \u043d\u0430 \u043c\u043e\u0440\u0435.",
    "\u6f22\u5b57 \u304b\u306a \u30ab\u30bf\u30ab\u30ca \u6f22\u5b57\u6f22\u5b57", "na\u00efve caf\u00e9 \u00fcber 12345 3.14 don't we've I'll",
]
TEXTS = 120  # recorded per tokenizer


def corpus():
    reference = json.loads((ROOT / "tests/data/eval/reference.json").read_text())
    lines = []
    for generation in reference["generations"].values():
        lines += (generation["greedy_text"] + "\n" + generation["sample_text"]).split("\n")
    return [line for line in lines if line] + OTHER * 4


def byte_base(lines):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    return json.loads(t.to_str())


def llama_base(lines):
    """The form transformers converts Llama and Mistral to: bytes at 3..258, then merges and letters."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, special_tokens=special, max_token_length=12, show_progress=False))
    doc = json.loads(t.to_str())
    doc["added_tokens"] = []
    doc["decoder"] = v.LLAMA_DECODER
    return doc


def train_sentencepiece(lines, name, **options):
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=folder + "/m", minloglevel=2, **options)
        (OUT / name).write_bytes(pathlib.Path(folder, "m.model").read_bytes())


def record_json(doc, texts):
    t = Tokenizer.from_str(json.dumps(doc))
    cases = []
    for text in texts:
        ids = t.encode(text, add_special_tokens=False).ids
        cases.append([text, ids, t.encode(text).ids, t.decode(ids, skip_special_tokens=False), t.decode(ids)])
    return cases


def record_model(name, texts):
    sp = sentencepiece.SentencePieceProcessor(model_file=str(OUT / name))
    cases = []
    for text in texts:
        ids = sp.encode(text)
        cases.append([text, ids, [sp.bos_id()] + ids, sp.decode(ids), sp.decode(ids)])
    return cases


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    lines = corpus()
    bases = {"byte_base": byte_base(lines), "llama_base": llama_base(lines)}
    for name, doc in bases.items():
        (OUT / f"{name}.json").write_text(json.dumps(doc, ensure_ascii=False, separators=(",", ":")))
    train_sentencepiece(lines, "unigram.model", model_type="unigram", vocab_size=280, hard_vocab_limit=False, user_defined_symbols=["<usr>"])
    train_sentencepiece(
        lines, "bpe.model", model_type="bpe", vocab_size=700, hard_vocab_limit=False, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, user_defined_symbols=["<usr>"])
    # Long runs would make the file large; the differential test has them.
    texts = [t for t in v.texts(1, 4 * TEXTS) if len(t) < 60][:TEXTS]
    tokens = {}
    for name, doc in v.variants(bases["byte_base"], bases["llama_base"]).items():
        tokens[name] = {"changes": {k: x for k, x in doc.items() if k != "model"}, "model": {k: x for k, x in doc["model"].items() if k not in ("vocab", "merges") or name in ("suffix", "prefix")}}
        tokens[name]["base"] = "llama_base" if name.startswith("llama") else "byte_base"
        if name == "byte-prefix":
            tokens[name]["merges_as_strings"] = True
        tokens[name]["cases"] = record_json(doc, texts[: TEXTS // 3] if name not in ("byte-llama3", "llama", "llama-old") else texts)
    for name in ("unigram.model", "bpe.model"):
        tokens[name] = {"cases": record_model(name, texts)}
    document = {"tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__, "vectors": tokens}
    (OUT / "vectors.json").write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace('"base":', '\n"base":') + "\n")


main()

#!/usr/bin/env python3
"""Compares the tokenizers with the packages `tokenizers` and `sentencepiece` from the registry.

  differential_test.py --cli BUILD/bin/tokenizer_cli --work DIRECTORY [--count 10000]

Ids with and without special tokens, decoded texts, decoding of random ids, and the incremental
detokenizer, over seeded random and nasty strings: --count of them for the forms that checkpoints
use, --variant-count for every other variant. Needs the packages of requirements.txt: ctest runs
it through tests/deploy/run_in_venv.sh.
"""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests/data/tokenizer"
# One of each published form: ByteLevel, Metaspace with byte fallback (old, and as a pre-tokenizer),
# SentencePiece.
MAIN_FORMS = ("embedded", "llama", "llama-new", "unigram", "bpe")


def ask(cli, path, requests):
    lines = "".join(json.dumps(r) + "\n" for r in requests)
    done = subprocess.run([cli, str(path)], input=lines, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"FAILED: {path}: {done.stderr.strip()}")
    # Not splitlines(): it also cuts at U+2028 and the like, which the answers contain.
    return [json.loads(line) for line in done.stdout.split("\n") if line]


class HuggingFace:
    def __init__(self, path):
        import tokenizers

        self.t = tokenizers.Tokenizer.from_file(str(path))
        self.end = max(self.t.get_vocab().values()) + 1

    def encode(self, texts):
        plain = self.t.encode_batch(texts, add_special_tokens=False)
        special = self.t.encode_batch(texts, add_special_tokens=True)
        return [(p.ids, s.ids) for p, s in zip(plain, special)]

    def decode(self, ids):
        try:
            return self.t.decode(ids, skip_special_tokens=False), self.t.decode(ids)
        except BaseException:  # its decoders panic on some inputs (no token for BPEDecoder)
            return None


class SentencePiece:
    def __init__(self, path):
        import sentencepiece

        self.sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.end = self.sp.get_piece_size()

    def encode(self, texts):
        return [(ids, [self.sp.bos_id()] + ids) for ids in self.sp.encode(texts)]

    def decode(self, ids):
        text = self.sp.decode(ids)
        return text, text


def compare(cli, path, reference, texts, id_lists, report):
    """Returns the number of comparisons that failed."""
    requests = [{"text": t} for t in texts] + [{"ids": i} for i in id_lists]
    answers = ask(cli, path, requests)
    assert len(answers) == len(requests), (path, len(answers))
    wanted = reference.encode(texts) + [None] * len(id_lists)
    failed = 0
    for request, answer, encoded in zip(requests, answers, wanted):
        want = {"stream": True}
        if encoded is not None:
            want["ids"], want["special"] = encoded
        decoded = reference.decode(request.get("ids", encoded and encoded[0]))
        if decoded is not None:
            want["keep"], want["skip"] = decoded
        wrong = [key for key in want if answer.get(key) != want[key]]
        if wrong:
            failed += 1
            if failed <= report:
                print(f"MISMATCH {path.name} {json.dumps(request)}")
                for key in wrong:
                    print(f"  {key}: got  {json.dumps(answer.get(key, answer.get('error')))[:600]}")
                    print(f"  {key}: want {json.dumps(want[key])[:600]}")
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cli", required=True)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--variant-count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20240601)
    parser.add_argument("--only", default="")
    parser.add_argument("--report", type=int, default=3)
    args = parser.parse_args()
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import variants

    byte_base, llama_base = (json.loads((DATA / f"{n}.json").read_text()) for n in ("byte_base", "llama_base"))
    paths = {"embedded": ROOT / "models/hgrn2-gutenberg-12m/tokenizer.json"}
    for name, document in variants.variants(byte_base, llama_base).items():
        paths[name] = args.work / f"{name}.json"
        paths[name].write_text(json.dumps(document))
    for name in ("unigram", "bpe"):
        paths[name] = DATA / f"{name}.model"
    total = 0
    for name, path in paths.items():
        if args.only and args.only not in name:
            continue
        reference = (HuggingFace if path.suffix == ".json" else SentencePiece)(path)
        count = args.count if name in MAIN_FORMS else args.variant_count
        texts = variants.texts(args.seed, count) + variants.sweep()
        id_lists = variants.id_lists(args.seed, count // 5, reference.end)
        failed = compare(args.cli, path, reference, texts, id_lists, args.report)
        print(f"{name}: {len(texts)} texts, {len(id_lists)} id lists, {failed} mismatches", flush=True)
        total += failed
    print("FAILED" if total else "passed")
    return 1 if total else 0


sys.exit(main())

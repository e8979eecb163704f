"""Tokenizers and texts that the recorded and the differential tests share.

`variants` makes tokenizer.json documents of every supported form out of two small trained
vocabularies; `texts` makes seeded random and nasty strings.
"""
import copy
import random

SPLIT_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_QWEN2 = SPLIT_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPLIT_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTE_LEVEL_RAW = dict(BYTE_LEVEL, use_regex=False)
LLAMA_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def split(regex, behavior="Isolated", invert=False, literal=False):
    pattern = {"String" if literal else "Regex": regex}
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(key, *items):
    return {"type": "Sequence", key: list(items)}


def added(id_, content, special=False, **flags):
    token = {"id": id_, "content": content, "special": special, "normalized": not special}
    token.update({"single_word": False, "lstrip": False, "rstrip": False})
    token.update(flags)
    return token


def template(first, id_, last=None, last_id=0):
    single = [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokens = {first: {"id": first, "ids": [id_], "tokens": [first]}}
    if last:
        single.append({"SpecialToken": {"id": last, "type_id": 0}})
        tokens[last] = {"id": last, "ids": [last_id], "tokens": [last]}
    pair = single + [{"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def document(base, **changes):
    doc = copy.deepcopy(base)
    model = changes.pop("model", {})
    doc.update(changes)
    doc["model"].update(model)
    return doc


def merges_as_strings(base):
    return [" ".join(pair) if isinstance(pair, list) else pair for pair in base["model"]["merges"]]


def variants(byte_base, llama_base):
    """name -> tokenizer.json document. The bases are trained by tools/make_tokenizer_vectors.py."""
    end = len(byte_base["model"]["vocab"])
    specials = [
        added(end, "<|begin|>", special=True),
        added(end + 1, "<|end|>", special=True, rstrip=True),
        added(end + 2, "<mask>", special=True, lstrip=True),
        added(end + 3, "foo", single_word=True, normalized=False),
        added(end + 4, "  "),
        added(end + 5, "\u00dcn\u0131 x", normalized=True),
        added(end + 6, "<|", special=True),
    ]
    lend = len(llama_base["model"]["vocab"])
    llama_specials = [
        added(0, "<unk>", special=True),
        added(1, "<s>", special=True),
        added(2, "</s>", special=True),
        added(lend, "<mask>", special=True, lstrip=True, rstrip=True),
        added(lend + 1, "Once", normalized=True),
        added(lend + 2, "\u2581\u2581", normalized=False),
    ]
    meta = {"type": "Metaspace", "replacement": "\u2581"}
    old_meta = dict(meta, str_rep="\u2581", add_prefix_space=True)
    new_meta = dict(meta, prepend_scheme="first", split=False)
    out = {
        "byte-gpt2": document(byte_base, added_tokens=specials),
        "byte-prefix": document(
            byte_base, added_tokens=specials, pre_tokenizer=dict(BYTE_LEVEL, add_prefix_space=True),
            model={"merges": merges_as_strings(byte_base)},
        ),
        "byte-llama3": document(
            byte_base, added_tokens=specials, model={"ignore_merges": True},
            pre_tokenizer=sequence("pretokenizers", split(SPLIT_LLAMA3), BYTE_LEVEL_RAW),
            post_processor=sequence("processors", BYTE_LEVEL, template("<|begin|>", end)),
        ),
        "byte-qwen2": document(
            byte_base, added_tokens=specials, normalizer={"type": "NFC"},
            pre_tokenizer=sequence("pretokenizers", split(SPLIT_QWEN2), BYTE_LEVEL_RAW),
            post_processor=template("<|begin|>", end, "<|end|>", end + 1),
        ),
        "byte-o200k": document(
            byte_base, added_tokens=specials,
            pre_tokenizer=sequence("pretokenizers", split(SPLIT_O200K), BYTE_LEVEL_RAW),
        ),
        "byte-deepseek": document(
            byte_base, added_tokens=specials,
            pre_tokenizer=sequence(
                "pretokenizers", split(r"\p{N}{1,3}"), split(CJK), split(SPLIT_DEEPSEEK), BYTE_LEVEL_RAW
            ),
        ),
        "byte-pieces": document(
            byte_base, added_tokens=specials, normalizer={"type": "NFD"},
            pre_tokenizer=sequence(
                "pretokenizers", {"type": "Digits", "individual_digits": True},
                {"type": "Punctuation", "behavior": "Contiguous"},
                split(r"\w+", "MergedWithPrevious"), split(" ", "MergedWithNext", literal=True),
                dict(BYTE_LEVEL, add_prefix_space=True),
            ),
        ),
        "byte-words": document(
            byte_base, added_tokens=specials, normalizer={"type": "Lowercase"},
            pre_tokenizer=sequence(
                "pretokenizers", {"type": "Whitespace"}, {"type": "Digits", "individual_digits": False},
                split(r"\W|\b[a-f]", "Contiguous", invert=True), BYTE_LEVEL_RAW,
            ),
        ),
        "byte-normalizer": document(
            byte_base, added_tokens=specials[:3], normalizer=sequence(
                "normalizers", {"type": "NFC"}, {"type": "ByteLevel"}),
            pre_tokenizer=None,
        ),
        "byte-nodecoder": document(
            # Without "  ", whose normalized form would be empty.
            byte_base, added_tokens=specials[:4] + specials[5:], decoder=None,
            normalizer=sequence(
                "normalizers", {"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": False},
                {"type": "Replace", "pattern": {"Regex": r"\s{2,}"}, "content": " "}),
            pre_tokenizer=sequence("pretokenizers", {"type": "WhitespaceSplit"}, BYTE_LEVEL),
        ),
        "llama": document(llama_base, added_tokens=llama_specials, post_processor=template("<s>", 1)),
        "llama-old": document(
            llama_base, added_tokens=llama_specials, pre_tokenizer=old_meta, normalizer=None,
            decoder=sequence("decoders", {"type": "ByteFallback"}, dict(old_meta)),
        ),
        "llama-new": document(
            llama_base, added_tokens=llama_specials, normalizer=None, pre_tokenizer=new_meta,
            decoder=sequence("decoders", dict(meta, prepend_scheme="first", split=False),
                             {"type": "ByteFallback"}, {"type": "Fuse"}),
        ),
        "llama-never": document(
            llama_base, added_tokens=llama_specials, normalizer={"type": "NFKD"},
            pre_tokenizer=dict(meta, prepend_scheme="never", split=True),
            decoder=sequence("decoders", dict(meta, prepend_scheme="never"), {"type": "ByteFallback"}),
            model={"fuse_unk": False, "byte_fallback": False},
        ),
        "llama-unk": document(
            llama_base, added_tokens=llama_specials, pre_tokenizer=old_meta, normalizer=None,
            decoder=sequence("decoders", {"type": "Fuse"},
                             {"type": "Replace", "pattern": {"String": "\u2581t"}, "content": " <t>"},
                             {"type": "Strip", "content": "\u2581", "start": 2, "stop": 0}),
            model={"fuse_unk": True, "byte_fallback": False},
        ),
        "llama-dropunk": document(
            llama_base, added_tokens=llama_specials[1:], pre_tokenizer={"type": "Whitespace"},
            normalizer={"type": "Lowercase"},
            decoder={"type": "Strip", "content": "e", "start": 1, "stop": 0},
            model={"unk_token": None, "byte_fallback": False},
        ),
    }
    suffix = document(
        llama_base, added_tokens=[], normalizer=None, pre_tokenizer={"type": "WhitespaceSplit"},
        decoder={"type": "BPEDecoder", "suffix": "</w>"}, post_processor=None,
    )
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = {t: i for i, t in enumerate(["<unk>", *letters, *(c + "</w>" for c in letters), "th", "the</w>", "he</w>", "in", "an", "and</w>"])}
    suffix["model"] = dict(
        suffix["model"], vocab=vocab, end_of_word_suffix="</w>", unk_token="<unk>", byte_fallback=False,
        fuse_unk=False, merges=[["t", "h"], ["th", "e</w>"], ["h", "e</w>"], ["i", "n"], ["a", "n"], ["an", "d</w>"]],
    )
    out["suffix"] = suffix
    prefix = copy.deepcopy(suffix)
    vocab = {t: i for i, t in enumerate(["<unk>", *letters, *("##" + c for c in letters), "th", "the", "##in", "an"])}
    prefix["model"].update(
        vocab=vocab, end_of_word_suffix=None, continuing_subword_prefix="##",
        merges=[["t", "##h"], ["th", "##e"], ["##i", "##n"], ["a", "##n"]],
    )
    prefix["decoder"] = None
    out["prefix"] = prefix
    return out


WORDS = (
    "Once upon a time there was the old man and the sea don't I'LL we've foo foobar (foo) the of in to "
    "12345 3.14 \u00dcn\u0131 x na\u00efve \u6f22\u5b57 \u304b\u306a \u30ab\u30bf \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940 "
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \ufb01 \u017f \u0130 \u212a \u1e9e \u00df \u01c5 \u2581 \u2581\u2581 \u0120 \u010a <0x41> <0xE4> #$%^&* --- ..."
).split(" ")
SPECIALS = ["<s>", "</s>", "<unk>", "<mask>", "<|begin|>", "<|end|>", "<|", "<|endoftext|>", "foo", "  ", "\u00dcn\u0131 x", "Once", "\u2581\u2581", "<pad>", "<usr>"]
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2009", "\u0085", "\u2028", "\u180e", "\u200b", "\x0b", "\x1c"]
MARKS = ["\u0301", "\u0316", "\u0345", "\u0334", "\u093c", "\u3099", "\u302a", "\u1ab0", "\u0897", "\U0001e4ec", "\U00010efd", "\u1161", "\u11a8"]


def any_char(rng):
    """A code point of any plane, unassigned ones and private use included."""
    kind = rng.random()
    if kind < 0.3:
        return chr(rng.randrange(0x80))
    if kind < 0.5:
        return chr(rng.randrange(0x80, 0x3000))
    while True:
        c = rng.randrange(0x110000) if kind > 0.8 else rng.randrange(0x3000 if kind < 0.65 else 0x10000, 0x20000)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def text(rng):
    """One random text."""
    out = []
    for _ in range(rng.choice((0, 1, 2, 3, 5, 8, 13, 30))):
        kind = rng.randrange(12)
        if kind < 3:
            out.append(rng.choice(WORDS))
        elif kind < 5:
            out.append(rng.choice(SPACES))
        elif kind == 5:
            out.append(rng.choice(SPECIALS))
        elif kind == 6:
            out.append("".join(any_char(rng) for _ in range(rng.randrange(1, 12))))
        elif kind == 7:
            marks = [rng.choice(MARKS) for _ in range(rng.randrange(1, 6))]
            out.append(rng.choice("aeiou\u1100\u304b\u0915 ") + "".join(marks))
        elif kind == 8:
            out.append(any_char(rng) * rng.choice((2, 3, 17, 100, 300)))
        elif kind == 9:
            out.append(rng.choice(WORDS) + rng.choice(WORDS))
        elif kind == 10:
            out.append("".join(chr(rng.randrange(0x20)) for _ in range(3)))
        else:
            out.append("".join(rng.choice("the anord'\"-") for _ in range(rng.randrange(1, 60))))
    return "".join(out)


def texts(seed, count):
    rng = random.Random(seed)
    fixed = ["", " ", "  ", "\n", "a", " a", "a ", "\u2581", "\u2581a", " " * 1000, "a" * 5000, "\n" * 300, "\u0301",
             "\x00", "\ufeff", "\ufffd", "\U0010ffff", "<s>", " <s> ", "x<mask> y", "foo", "afoo", "foo,foo foo"]
    return (fixed + [text(rng) for _ in range(count)])[:count]


def sweep():
    """Every code point once, alone between spaces and next to its neighbours."""
    codes = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    blocks = [codes[i : i + 2048] for i in range(0, len(codes), 2048)]
    return [sep.join(block) for sep in ("", " ") for block in blocks if ord(block[0]) < 0x20000 or sep]


def id_lists(seed, count, end):
    """Random ids, with runs of low ones (where byte tokens and special tokens are)."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        low = rng.random() < 0.5
        out.append([rng.randrange(min(end, 270) if low and rng.random() < 0.8 else end) for _ in range(rng.randrange(30))])
    return out

# SPDX-License-Identifier: Apache-2.0
"""Build a `tokenizers` tokenizer from the vocabulary and merges inside a GGUF."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # tokenizer.ggml.token_type
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


REQUIRED = object()


def content(fields, key, default=REQUIRED):
    if key in fields:
        return fields[key].contents()
    if default is REQUIRED:
        raise ValueError(f"the file has no {key}")
    return default


def eos_ids(fields):
    """Every token that ends an answer: the file's own, and the end of a chat turn."""
    tokens = content(fields, "tokenizer.ggml.tokens", [])
    named = [content(fields, f"tokenizer.ggml.{kind}_token_id", None) for kind in ("eos", "eot")]
    return sorted({i for i in named if i is not None} | {tokens.index(t) for t in END_OF_TURN if t in tokens})


def byte_level_split(name):
    """The pre-tokenizer that the file names in tokenizer.ggml.pre."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in ("default", "gpt-2"):
        return plain
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    if name in ("llama-bpe", "llama3", "llama-v3"):
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    raise ValueError(f"pre-tokenizer '{name}' is not supported")


def byte_level(fields, vocab):
    merges = [tuple(m.split(" ", 1)) for m in content(fields, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = byte_level_split(content(fields, "tokenizer.ggml.pre", "default"))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentence_piece(fields, tokens, vocab):
    """SentencePiece BPE has scores instead of merges: a pair merges by the score of what it makes."""
    scores = content(fields, "tokenizer.ggml.scores")
    pairs = [
        (-scores[vocab[t]], vocab[t[:i]], vocab[t[i:]])
        for t in tokens
        for i in range(1, len(t))
        if t[:i] in vocab and t[i:] in vocab
    ]
    merges = [(tokens[left], tokens[right]) for _, left, right in sorted(pairs)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            byte_fallback=True,
            fuse_unk=True,
            unk_token=tokens[content(fields, "tokenizer.ggml.unknown_token_id", 0)],
        )
    )
    space = [normalizers.Replace(" ", "▁")]
    if content(fields, "tokenizer.ggml.add_space_prefix", True):
        space.insert(0, normalizers.Prepend("▁"))
    tokenizer.normalizer = normalizers.Sequence(space)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def build_tokenizer(fields):
    tokens, kinds = content(fields, "tokenizer.ggml.tokens"), content(fields, "tokenizer.ggml.token_type", None)
    vocab = {token: i for i, token in enumerate(tokens)}
    kind = content(fields, "tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = byte_level(fields, vocab)
    elif kind == "llama":
        tokenizer = sentence_piece(fields, tokens, vocab)
    else:
        raise ValueError(f"tokenizer '{kind}' is not supported")
    special = [t for t, k in zip(tokens, kinds or []) if k in (CONTROL, USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    if content(fields, "tokenizer.ggml.add_bos_token", kind == "llama"):
        bos = content(fields, "tokenizer.ggml.bos_token_id")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
        )
    return tokenizer

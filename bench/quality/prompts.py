# SPDX-License-Identifier: Apache-2.0
"""The lab's prompts as token ids, from a document and a seed."""

import random, re, sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
sys.path += [str(EXAMPLES / "compare"), str(EXAMPLES / "engine")]
from tasks import ANSWER, ASK, INTRO, NEEDLE, Prompts

KINDS = ("single", "multi_key", "multi_value")
ASK_ALL = "\nWhat are all the special magic numbers for {key} mentioned in the provided text?"
ANSWER_ALL = "The special magic numbers for {key} are:"


def pieces(text):
    """Sentences, or lines of code: where a needle can stand between."""
    return [p for p in re.split(r"(?<=[.;:?!])(?=\s)|(?<=\n)", text) if p]


class Lab:
    def __init__(self, tokens, text, name, length, seed):
        self.name, self.length, self.seed = name, length, seed
        self.random = random.Random(f"{name} {length} {seed}")
        self.prompts = Prompts(tokens, 0)
        self.pieces = [self.prompts.ids(p) for p in pieces(text)]

    def window(self, tokens):
        """Pieces from a random place on, `tokens` in all; the last is cut."""
        lengths = [len(p) for p in self.pieces]
        starts = [i for i in range(len(lengths)) if sum(lengths[i:]) >= tokens]
        if not starts:
            raise ValueError(f"{self.name} has {sum(lengths)} tokens, fewer than {tokens}")
        out, i = [], self.random.choice(starts)
        while (left := tokens - sum(map(len, out))) > 0:
            out.append(self.pieces[i][:left])
            i += 1
        return out

    def needle(self, kind, number):
        p, many = self.prompts, kind == "multi_value"
        keys = self.random.sample(p.keys, 1 if kind != "multi_key" else 2)
        planted = [(k, str(self.random.randint(10000, 99999))) for k in keys for _ in range(1 + many)]
        ask, reply = (ASK_ALL, ANSWER_ALL) if many else (ASK, ANSWER)
        question = p.ids(ask.format(key=keys[0]) + p.after + reply.format(key=keys[0]))
        head = p.ids(p.before + INTRO)
        needles = [p.ids(NEEDLE.format(key=k, number=n)) for k, n in planted]
        hay = self.window(self.length - len(head) - len(question) - sum(map(len, needles)))
        for ids in needles:
            hay.insert(self.random.randrange(len(hay)), ids)
        return {
            "task": f"{kind}_{self.length}_{number}",
            "context": head + [i for ids in hay for i in ids],
            "question": question,
            "answers": [p.ids(n) for k, n in planted if k == keys[0]],
            "reply_tokens": 20 if many else 8,
        }

    def passage(self, context, follow):
        ids = [i for piece in self.window(context + follow) for i in piece]
        return {"task": f"text_{context}", "context": ids[:context], "follow": ids[context:]}

    def tasks(self, model, each, text, thorough):
        """`each` needles of a kind; a text; and, thoroughly, that text with four sinks for all, and decoding."""
        out = {
            "seed": self.seed,
            "model": model,
            "both_structures": thorough,
            "needle": [self.needle(kind, i) for kind in KINDS for i in range(each)],
            "text": [self.passage(1024, 256)] if text else [],
        }
        if thorough:
            out |= {"decode": {**self.passage(512, 0), "task": "decode_512"}, "decode_tokens": 512}
        return out

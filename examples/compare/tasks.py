#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the prompts of the comparison as token ids: needle prompts generated from a seed, and passages of licence
texts.

    tasks.py MODEL_DIR [--quick] [--seed N] > tasks.json

Needle prompts follow RULER: sentences of a generated haystack, one "special magic number" (single) or two with
different keys (multi), a question about one of them in the model's chat template, and the beginning of the answer. All
prompts of a task have exactly the same number of tokens, with and without the question. The texts are
/usr/share/common-licenses of Debian's base-files.
"""

import argparse, json, random, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "engine"))
from tokens import Tokens

LICENCES = Path("/usr/share/common-licenses")
COLOURS = "red blue green black white grey brown golden silver purple orange pink".split()
ANIMALS = "fox bear wolf lion tiger horse mouse snake eagle whale goat duck frog crow deer hare".split()
INTRO = (
    "Some special magic numbers are hidden within the following text. Make sure to memorize them. "
    "I will quiz you about them afterwards.\n"
)
NEEDLE = " One of the special magic numbers for {key} is: {number}."
ASK = "\nWhat is the special magic number for {key} mentioned in the provided text?"
ANSWER = "The special magic number for {key} is:"
WHO = (
    "The baker|A sailor|Her uncle|The old teacher|A young clerk|The gardener|Our neighbour|The mayor|"
    "A tired nurse|The carpenter"
).split("|")
DID = (
    "walked to|looked for|talked about|wrote a letter from|painted|described|returned to|dreamt of|"
    "took a photograph of|sketched"
).split("|")
WHAT = (
    "the harbour|the market|a quiet village|the northern road|the empty station|the long bridge|"
    "a small orchard|the town library|the mill|the lighthouse"
).split("|")
WHEN = (
    "before the rain began|in early spring|after the meeting|while the children slept|on a cold morning|"
    "late in the evening|during the festival|as the bells rang|without saying a word|"
    "for the third time that week"
).split("|")


class Prompts:
    def __init__(self, tokens, seed):
        self.tokens, self.random = tokens, random.Random(seed)
        mark = "\x01"
        text = tokens.template.render(
            messages=[{"role": "user", "content": mark}], add_generation_prompt=True, bos_token="", eos_token=""
        )
        self.before, self.after = text.split(mark)
        self.pairs = [f"{c}-{a}" for c in COLOURS for a in ANIMALS]
        lengths = {k: len(self.question(k)) for k in self.pairs}
        usual = max(set(lengths.values()), key=list(lengths.values()).count)
        self.keys = [k for k in self.pairs if lengths[k] == usual]  # so that every prompt of a task is equally long

    def ids(self, text):
        return self.tokens.tokenizer.encode(text, add_special_tokens=False).ids

    def question(self, key):
        return self.ids(ASK.format(key=key) + self.after + ANSWER.format(key=key))

    def sentence(self):
        pick = self.random.choice
        return f" {pick(WHO)} {pick(DID)} {pick(WHAT)} {pick(WHEN)}."

    def needle(self, needles, length):
        """One prompt of exactly `length` tokens, question included."""
        keys = []
        while len(keys) < needles:  # no two keys of a prompt share a word
            key = self.random.choice(self.keys)
            if not any(word in other.split("-") for other in keys for word in key.split("-")):
                keys.append(key)
        numbers = [str(self.random.randint(10000, 99999)) for _ in keys]
        question = self.question(keys[0])
        hay, room = [], length - len(question) - len(head := self.ids(self.before + INTRO))
        planted = [self.ids(NEEDLE.format(key=k, number=n)) for k, n in zip(keys, numbers)]
        room -= sum(map(len, planted))
        while sum(map(len, hay)) < room:
            hay.append(self.ids(self.sentence()))
        hay[-1] = hay[-1][: len(hay[-1]) - (sum(map(len, hay)) - room)]
        for ids in planted:
            hay.insert(self.random.randrange(len(hay)), ids)
        context = head + [i for ids in hay for i in ids]
        assert len(context) + len(question) == length
        kind = "single" if needles == 1 else "multi"
        return {"task": f"{kind}_{length}", "context": context, "question": question, "answer": self.ids(numbers[0])}

    def passage(self, name, context, follow=0, skip=0):
        ids = self.ids((LICENCES / name).read_text(encoding="utf-8"))[skip:]
        if len(ids) < context + follow:
            raise ValueError(f"{LICENCES / name} has fewer than {context + follow} tokens")
        return {
            "task": name.lower().replace("-", "").replace(".", ""),
            "context": ids[:context],
            "follow": ids[context : context + follow],
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        tokens = Tokens(options.model_dir)
        make = Prompts(tokens, options.seed)
        lengths, each = ((1000,), 3) if options.quick else ((1000, 2000, 3000, 4000), 5)
        follow = 128 if options.quick else 256
        texts = ["GPL-3"] if options.quick else ["GPL-3", "GFDL-1.3", "Apache-2.0"]
        json.dump(
            {
                "seed": options.seed,
                "model": tokens.config["name"],
                "both_structures": not options.quick,
                "needle": [make.needle(n, length) for length in lengths for n in (1, 2) for _ in range(each)],
                "text": [make.passage(name, 1024, follow) for name in texts],
                "decode": make.passage("GFDL-1.3", 512 if options.quick else 1024),
                "decode_tokens": 256 if options.quick else 512,
                "growth": make.passage("GPL-3", 4096),
                "growth_tokens": 2048 if options.quick else 4096,
            },
            sys.stdout,
        )
    except (OSError, ValueError, KeyError) as error:
        print(f"tasks.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

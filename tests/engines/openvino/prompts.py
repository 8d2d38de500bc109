#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Token ids by the converted model's own tokenizer, numbers in text files.

prompts.py MODEL_DIR DIR     DIR/text.txt      Debian's GPL-3
                             DIR/needles.txt   a line a prompt: answer | prompt; of the kind of
                                               examples/compare/tasks.py
"""

import sys, types
from pathlib import Path

import openvino_genai

sys.modules["tokens"] = types.SimpleNamespace(Tokens=None)  # the examples' tokenizer, which needs packages of its own
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples/compare"))
import tasks

PROMPTS, LENGTH = 8, 400


class Tokens:
    """What tasks.Prompts asks of a tokenizer and of a chat template."""

    def __init__(self, directory):
        self.genai = openvino_genai.Tokenizer(directory)
        self.tokenizer = self.template = self

    def encode(self, text, add_special_tokens=False):
        ids = self.genai.encode(text, add_special_tokens=add_special_tokens).input_ids.data[0]
        return types.SimpleNamespace(ids=[int(i) for i in ids])

    def render(self, messages, **_):
        return self.genai.apply_chat_template(messages, add_generation_prompt=True)


def words(ids):
    return " ".join(map(str, ids))


def main():
    tokens, out = Tokens(sys.argv[1]), Path(sys.argv[2])
    (out / "text.txt").write_text(
        words(tokens.encode((tasks.LICENCES / "GPL-3").read_text(encoding="utf-8")).ids) + "\n"
    )
    make = tasks.Prompts(tokens, 1)
    needles = [make.needle(1 + i % 2, LENGTH) for i in range(PROMPTS)]
    lines = [f"{words(n['answer'])} | {words(n['context'] + n['question'])}\n" for n in needles]
    (out / "needles.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()

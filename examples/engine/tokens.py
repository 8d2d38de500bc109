#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Text to token ids and back. One JSON value per line on stdin, one per line on stdout.

    tokens.py DIR encode    "text"                 ->  [ids]
    tokens.py DIR decode    [ids]                  ->  "text"    (special tokens are left out)
    tokens.py DIR chat      [{role, content} ...]  ->  [ids]     (the model's chat template; a plain "text" is one user
                                                                 turn)
    tokens.py DIR stream    id or [ids]            ->  plain text as it grows, for the screen

`chat` opens the assistant's turn; a last message of role "prefix" is the beginning of its answer.
DIR is what prepare.py printed.
"""

import json, sys
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer


class Tokens:
    def __init__(self, directory):
        self.tokenizer = Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))
        self.config = json.loads((Path(directory) / "config.json").read_text())
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = self.refuse
        self.template = environment.from_string(self.config["chat_template"])

    @staticmethod
    def refuse(message):
        raise ValueError(message)

    def special(self, index):
        return self.tokenizer.id_to_token(index) or "" if index >= 0 else ""

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids)

    def chat(self, messages):
        if not self.config["chat_template"]:
            raise ValueError("this model has no chat template")
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        prefix = messages[-1]["content"] if messages[-1]["role"] == "prefix" else ""
        turns = [m for m in messages if m["role"] != "prefix"]
        text = self.template.render(
            messages=turns,
            add_generation_prompt=True,
            bos_token=self.special(self.config["bos"]),
            eos_token=self.special(self.config["eos"][0] if self.config["eos"] else -1),
        )
        return self.tokenizer.encode(text + prefix, add_special_tokens=False).ids

    def stream(self, lines, out):
        ids, shown = [], ""
        for line in lines:
            new = json.loads(line)
            ids += new if isinstance(new, list) else [new]
            text = self.decode(ids)
            if not text.endswith("\ufffd"):  # half of a character: wait for the rest
                print(text[len(shown) :], end="", flush=True, file=out)
                shown = text
        print(file=out)


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in ("encode", "decode", "chat", "stream"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        tokens = Tokens(sys.argv[1])
        if sys.argv[2] == "stream":
            return tokens.stream(sys.stdin, sys.stdout)
        for line in sys.stdin:
            print(json.dumps(getattr(tokens, sys.argv[2])(json.loads(line))), flush=True)
    except Exception as error:
        print(f"tokens.py: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The numbers that check.cpp compares with, from transformers and its own GGUF loader.

    reference.py DIR reference.json    write them
    reference.py DIR --time 2000       seconds of a prefill (SDPA, 2 threads), median of 5

DIR is what prepare.py printed: the GGUF that it names is loaded again, and the token ids are tokens.py's (transformers
ignores the GGUF's pre-tokenizer and splits digits otherwise). Needs requirements-reference.txt in an environment of its
own.
"""

import argparse, json, math, statistics, time
from pathlib import Path

import torch
import transformers

from tokens import Tokens

LICENCES = Path("/usr/share/common-licenses")
EVERY = 16  # one logit in so many is kept


def prompts(tokens):
    """Name -> token ids."""
    return {
        "plain": tokens.encode("The capital of France is"),
        "chat": tokens.chat("List three reasons why the sky is blue, then count from 1 to 12."),
        "long": tokens.encode((LICENCES / "Apache-2.0").read_text()[:6000]),
    }


def measure(model, ids):
    tokens = torch.tensor([ids])
    logits = model(tokens).logits[0, -1]
    greedy = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=64,
        min_new_tokens=64,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, len(ids) :]
    return {
        "ids": ids,
        "logits": [round(x, 5) for x in logits[::EVERY].tolist()],
        "max_abs_logit": logits.abs().max().item(),
        "greedy": greedy.tolist(),
    }


def perplexity(model, ids):
    tokens = torch.tensor([ids])
    return math.exp(torch.nn.functional.cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:]).item())


def write(model, tokens, target):
    ids = tokens.encode((LICENCES / "GPL-3").read_text())[:1024]
    numbers = {
        "command": "reference.py DIR reference.json, where DIR is what prepare.py printed for "
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "logit_stride": EVERY,
        "perplexity": {
            "text": "the first 1024 tokens of GPL-3 in Debian's common-licenses",
            "ids": ids,
            "value": perplexity(model, ids),
        },
        "prompts": {name: measure(model, ids) for name, ids in prompts(tokens).items()},
    }
    target.write_text(json.dumps(numbers) + "\n")
    print(
        {name: (len(p["ids"]), tokens.decode(p["greedy"])[:70]) for name, p in numbers["prompts"].items()},
        numbers["perplexity"]["value"],
    )


def seconds_of_prefill(model, count):
    tokens = torch.randint(100, 40000, (1, count), generator=torch.Generator().manual_seed(1))

    def once():
        start = time.perf_counter()
        model(tokens, logits_to_keep=1)
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(5))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--time", type=int, metavar="TOKENS")
    options = parser.parse_args()
    torch.set_num_threads(2)
    tokens = Tokens(options.directory)
    source = Path(tokens.config["source"]["file"])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    with torch.inference_mode():
        if options.target:
            write(model, tokens, options.target)
        if options.time:
            print(
                f"torch {torch.__version__} sdpa, {options.time} tokens: "
                f"{seconds_of_prefill(model, options.time):.3f} s"
            )


if __name__ == "__main__":
    main()

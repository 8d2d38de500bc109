#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input to the programs of the engine: each is refused with exit status 2 and one line that says what is wrong.

    refusals.py BIN_DIR      the folder with engine_generate and engine_speed; others are tried where they are built

The model is a tiny one that is written here, whole and damaged in each way. Ends with: N passed, M failed.
"""

import json, math, random, re, struct, subprocess, sys, tempfile
from pathlib import Path

HIDDEN, FFN, VOCAB, POSITIONS = 8, 16, 32, 64
CONFIG = dict(
    layers=1, heads=2, kv_heads=1, head_dim=4, hidden=HIDDEN, ffn=FFN, vocab=VOCAB, max_positions=POSITIONS,
    rope_base=10000.0, rms_eps=1e-5, tied=True, eos=[31], rope_factors=[],
)  # fmt: skip
SHAPES = {
    "model.embed_tokens": [VOCAB, HIDDEN],
    "model.norm": [HIDDEN],
    "model.layers.0.input_layernorm": [HIDDEN],
    "model.layers.0.self_attn.q_proj": [8, HIDDEN],
    "model.layers.0.self_attn.k_proj": [4, HIDDEN],
    "model.layers.0.self_attn.v_proj": [4, HIDDEN],
    "model.layers.0.self_attn.o_proj": [HIDDEN, 8],
    "model.layers.0.post_attention_layernorm": [HIDDEN],
    "model.layers.0.mlp.gate_proj": [FFN, HIDDEN],
    "model.layers.0.mlp.up_proj": [FFN, HIDDEN],
    "model.layers.0.mlp.down_proj": [HIDDEN, FFN],
}


def write_model(directory, change=lambda weights: None, config={}, cut=0):
    """The tiny model; `change` may damage its weights, `cut` bytes are missing at the end."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | config))
    generator = random.Random(1)
    weights = {name: [generator.gauss(0, 0.5) for _ in range(math.prod(s))] for name, s in SHAPES.items()}
    change(weights)
    header, data = {}, b""
    for name, values in weights.items():
        begin = len(data)
        data += struct.pack(f"<{len(values)}f", *values)
        header[f"{name}.weight"] = {"dtype": "F32", "shape": SHAPES[name], "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "model.safetensors").write_bytes((struct.pack("<Q", len(text)) + text + data)[: -cut or None])
    return directory


def damaged(name, value):
    def change(weights):
        weights[name][3] = value

    return change


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: refusals.py BIN_DIR")
    programs, failures, passed = Path(sys.argv[1]), 0, 0

    def run(name, arguments, stdin=""):
        return subprocess.run(
            [programs / name, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60
        )

    def check(good, what, done):
        nonlocal failures, passed
        passed, failures = passed + good, failures + (not good)
        if not good:
            said = (done.stderr or done.stdout).strip()[:300]
            print(f"{what}: exit status {done.returncode}, says: {said}")

    def refused(what, words, name, arguments, stdin=""):
        done = run(name, arguments, stdin)
        lines = done.stderr.strip().splitlines()
        check(done.returncode == 2 and len(lines) == 1 and re.search(words, lines[0]) is not None, what, done)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        whole = write_model(folder / "whole")
        generate = ["--model", whole, "--policy", "streaming_llm", "--budget", 6]
        prompt = json.dumps([i % 30 for i in range(20)])

        done = run("engine_generate", [*generate, "--tokens", 5], prompt)
        tokens = done.stdout.split()
        check(done.returncode == 0 and 0 < len(tokens) <= 5, "a sound call", done)
        done = run(
            "engine_generate", [*generate, "--tokens", POSITIONS - 20 + 1], prompt
        )  # the last one is not fed back
        check(done.returncode == 0, "as many tokens as the model has positions", done)

        refused("an empty prompt", "the prompt has no tokens", "engine_generate", generate, "[]")
        refused("no prompt", "JSON array of token ids", "engine_generate", generate, "")
        refused("a prompt that is a text", "JSON array of token ids", "engine_generate", generate, '"text"')
        refused("a token outside the vocabulary", "outside the vocabulary", "engine_generate", generate, "[1, 32]")
        refused(
            "a prompt longer than the model",
            "65 tokens.*64 positions",
            "engine_generate",
            generate,
            json.dumps([1] * 65),
        )
        for count in (POSITIONS - 20 + 2, 999999999, 2**31 - 1):
            refused(f"{count} tokens", "at most 45", "engine_generate", [*generate, "--tokens", count], prompt)
        refused(
            "an unknown policy",
            "no preset 'lru'.*keydiff",
            "engine_generate",
            ["--model", whole, "--policy", "lru"],
            prompt,
        )
        gate = ["--model", whole, "--policy", "attention_gate"]
        refused("gates without a file", "needs --gates", "engine_generate", gate, prompt)

        for value in (math.nan, math.inf):
            for tensor in SHAPES:
                model = write_model(folder / f"{tensor}{value}", damaged(tensor, value))
                words = re.escape(tensor) + r"\.weight.*not a finite number"
                refused(f"{value} in {tensor}", words, "engine_generate", ["--model", model], prompt)
        model = write_model(folder / "large", lambda w: w.update({"model.norm": [3e38] * HIDDEN}))
        refused("logits that overflow", "logits.*not finite", "engine_generate", ["--model", model], prompt)
        model = write_model(folder / "short", cut=100)
        refused("a file cut short", "truncated", "engine_generate", ["--model", model], prompt)
        model = write_model(folder / "headless", cut=4100)
        refused(
            "a file cut short in its header", "truncated|parse error", "engine_generate", ["--model", model], prompt
        )
        huge = write_model(folder / "huge", config=dict(max_positions=1 << 22))
        refused(
            "positions beyond memory", "at most", "engine_generate", ["--model", huge, "--tokens", 2**31 - 1], prompt
        )
        refused("no model", "no such file", "engine_generate", ["--model", folder / "none"], prompt)

        many = write_model(folder / "many", config=dict(max_positions=160))
        for count in ("0", "-5", "many", "9999999999999"):
            refused(f"speed of {count} tokens", "whole number", "engine_speed", [many, count])
        for count in (17, 2000):
            refused(f"speed of {count} tokens", "at most 16", "engine_speed", [many, count])
        refused("speed of a model without positions", "at most -80", "engine_speed", [whole])
        done = run("engine_speed", [many, 16])
        check(done.returncode == 0, "the speed of a small model", done)
        for name in ("engine_check", "engine_check_eviction"):
            if (programs / name).exists():
                refused(f"{name} without a reference", "none.json: no such file", name, [whole, folder / "none.json"])
        if (programs / "engine_compare").exists():
            compare = ["--model", whole, "--out", folder, "--tasks"]
            refused("no tasks", "none.json: no such file", "engine_compare", [*compare, folder / "none.json"])
    print(f"{passed} passed, {failures} failed")
    sys.exit(failures != 0)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Scores and kept tokens of kvpress, through its own hooks, on tiny models with random weights; run.sh calls it.

Queries and keys are written before rotation, as the scores of some presses start there; positions are 0, 1, 2 …
"""

import json, math, sys
from contextlib import contextmanager

import kvpress
import numpy as np
import torch
from kvpress.utils import get_prerope_key_states, get_prerope_query_states
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

SEED, VOCABULARY = 1, 64


def model_of(config, model, heads, kv_heads, head_dim, hidden, layers, base):
    sizes = dict(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, hidden_size=hidden)
    rope = {"rope_type": "default", "rope_theta": base}
    rest = dict(num_hidden_layers=layers, intermediate_size=2 * hidden, vocab_size=VOCABULARY, initializer_range=0.2)
    torch.manual_seed(SEED)
    out = model(config(**sizes, **rest, rope_parameters=rope)).eval()
    with torch.no_grad():  # heads and channels differ: the first head's attention is sharper
        for layer in out.model.layers:
            layer.self_attn.k_proj.weight[:head_dim] *= 2
            for name in ("q_norm", "k_norm"):
                if hasattr(layer.self_attn, name):
                    getattr(layer.self_attn, name).weight.uniform_(0.2, 2)
    return out


MODELS = {
    "llama": lambda: model_of(LlamaConfig, LlamaForCausalLM, 4, 2, 8, 32, 4, 10_000.0),
    "qwen3": lambda: model_of(Qwen3Config, Qwen3ForCausalLM, 6, 2, 16, 24, 2, 1_000_000.0),
}
# model, its layers that are written, tokens, share that is pruned, window, chunk, lag, β of PyramidKV; with 20 it
# falls back to equal layers
CASES = (
    ("llama", (0, 3), 100, 0.6, 8, 12, 16, 4),
    ("llama", (2,), 40, 0.5, 10, 5, 6, 2),
    ("qwen3", (1,), 130, 0.8, 16, 7, 8, 20),
)
SINKS, FUTURE, EPSILON = 4, 64, 0.02
TINY = 0.99  # leaves one token a head


def presses(ratio, window, chunk, lag, beta):
    p = kvpress
    snapkv = lambda **more: p.SnapKVPress(ratio, window_size=window, **more)
    expected = lambda **more: p.ExpectedAttentionPress(ratio, n_future_positions=FUTURE, n_sink=SINKS, **more)
    return {
        "snapkv": snapkv(),
        "pyramidkv": p.PyramidKVPress(ratio, window_size=window, beta=beta),
        "ada_snapkv_200": p.AdaKVPress(snapkv(), alpha_safeguard=0.2),
        "ada_snapkv_950": p.AdaKVPress(snapkv(), alpha_safeguard=0.95),
        "ada_keydiff_200": p.AdaKVPress(p.KeyDiffPress(TINY), alpha_safeguard=0.2),
        "keydiff": p.KeyDiffPress(ratio),
        "knorm": p.KnormPress(ratio),
        "lagkv": p.LagKVPress(ratio, n_sink=SINKS, lag_size=lag),
        "tova": p.TOVAPress(ratio),
        "streaming_llm": p.StreamingLLMPress(ratio, n_sink=SINKS),
        "observed_attention": p.ObservedAttentionPress(ratio),
        "chunkkv": p.ChunkKVPress(snapkv(kernel_size=1), chunk_length=chunk),
        "chunkkv_knorm": p.ChunkKVPress(p.KnormPress(ratio), chunk_length=chunk),
        "leverage": p.LeverageScorePress(ratio),
        "expected_attention": expected(epsilon=EPSILON),
        "expected_attention_mean": expected(use_covariance=False, use_vnorm=False),
        "criticalkv": p.CriticalKVPress(snapkv()),
        "ada_criticalkv": p.CriticalAdaKVPress(snapkv()),
    }


@contextmanager
def without_a_sketch(press, head_dim):
    """LeverageScorePress multiplies the keys by random numbers; here by the identity, so that leverage is exact."""
    usual = torch.randn
    press.sketch_dimension = head_dim
    torch.randn = lambda b, h, d, k, **_: math.sqrt(k) * torch.eye(d, k).expand(b, h, d, k)
    try:
        yield
    finally:
        torch.randn = usual


def kept_of(before, after, masked):
    """Indices that stay in each head: by what the press masks, or by the rows that it has left."""
    heads, tokens = before.shape[1:3]
    if masked is not None:
        gone = set(zip(masked[1].tolist(), masked[2].tolist()))
        return [[j for j in range(tokens) if (h, j) not in gone] for h in range(heads)]
    places = [{row.tobytes(): j for j, row in enumerate(head.numpy())} for head in before[0]]
    assert all(len(p) == tokens for p in places), "two keys of a head are equal"
    return [sorted(places[h][row.tobytes()] for row in head.numpy()) for h, head in enumerate(after[0])]


def watch(press, found, inputs):
    """The press's results by layer, into `found`; what it was given, into `inputs`."""
    scorer = press if isinstance(press, kvpress.ScorerPress) else press.press
    name = "compute_leverage_scores" if isinstance(press, kvpress.LeverageScorePress) else "score"
    score, compress, last = getattr(scorer, name), press.compress, {}

    def watched_score(*arguments, **named):
        out = score(*arguments, **named)
        last["scores"] = out.detach().clone()
        return out

    def watched_compress(module, hidden, keys, values, attentions, kwargs):
        after = compress(module, hidden, keys, values, attentions, kwargs)
        kept = kept_of(keys, after[0], getattr(module, "masked_key_indices", None))
        found[module.layer_idx] = {"scores": tensor(last["scores"][0]), "kept": kept}
        inputs[module.layer_idx] = {
            "Q": tensor(get_prerope_query_states(module, hidden)[0]),
            "K": tensor(get_prerope_key_states(module, hidden)[0]),
            "V": tensor(values[0]),
            "Wo": tensor(module.o_proj.weight),
        }
        return after

    object.__setattr__(scorer, name, watched_score)
    object.__setattr__(press, "compress", watched_compress)


def tensor(x):
    """As JSON: the shortest digits that make the same float."""
    x = x.detach().float().contiguous().numpy()
    return {"shape": list(x.shape), "data": [float(str(v)) for v in x.ravel()]}


@torch.no_grad()
def cases_of(name, layers, tokens, ratio, *options):
    model = MODELS[name]()
    ids = torch.randint(VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    about = {"model": name, "ratio": ratio} | dict(zip(("window", "chunk", "lag", "beta"), options))
    about |= {"sinks": SINKS, "future": FUTURE, "epsilon": EPSILON}
    about |= {"layer_count": model.config.num_hidden_layers, "rope_base": model.config.rope_parameters["rope_theta"]}
    results, inputs = {}, {}
    for key, press in presses(ratio, *options).items():
        results[key] = {}
        watch(press, results[key], inputs if key == "snapkv" else {})
        model.set_attn_implementation("eager" if key == "observed_attention" else "sdpa")
        if key == "leverage":
            with without_a_sketch(press, model.config.head_dim), press(model):
                model(ids)
        else:
            with press(model):
                model(ids)
    counts = [len(results["pyramidkv"][i]["kept"][0]) for i in range(model.config.num_hidden_layers)]
    for layer in layers:
        own = {"layer": layer, "pyramidkv_counts": counts}
        yield about | own | inputs[layer] | {k: r[layer] for k, r in results.items()}


def main():
    torch.set_num_threads(1)
    lines = []
    for case in CASES:
        for out in cases_of(*case):
            lines.append("{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in out.items()) + "\n}")
    with open(sys.argv[1], "w") as file:
        file.write("[" + ",\n".join(lines) + "]\n")


if __name__ == "__main__":
    main()

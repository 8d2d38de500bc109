# SPDX-License-Identifier: Apache-2.0
"""kvpress' hooks end to end on a real model, and kvevict on the same cache: what each adds to a prefill."""

import sys, time
from dataclasses import dataclass
from pathlib import Path

import kvpress
import torch
from transformers.models.llama.modeling_llama import rotate_half

from measure import Way, measure, same_up_to_ties
from pieces import ALPHA, Layer

TREE = Path(__file__).resolve().parents[2]
sys.path += [str(TREE / part) for part in ("bench/quality", "examples/compare")]
import presses, tasks

WINDOW, POOL, SHARE = 32, 7, 5


@dataclass
class Seen:
    """A layer of a prefill: what its hook is called with, and its cache as kvevict takes it."""

    call: tuple
    layer: Layer

    def take_queries(self):
        """As kvpress has them, which projects the window's hidden states anew."""
        module, _, named, _ = self.call
        cos, sin = (x[0, -WINDOW:, None] for x in named["position_embeddings"])
        q = module.q_proj(named["hidden_states"][0, -WINDOW:]).view(WINDOW, -1, module.head_dim)
        self.layer.queries.copy_(q * cos + rotate_half(q) * sin)


class Model:
    """A prefill of one prompt, a needle prompt of examples/compare; its layers, its caches, and its CPU seconds."""

    def __init__(self, directory, library, tokens):
        needle = tasks.Prompts(tasks.Tokens(directory), 1).needle(1, tokens)
        owner = presses.Model(directory)
        start = time.process_time()
        self.read = owner.prefill(needle["context"] + needle["question"])
        self.seconds = time.process_time() - start
        self.model, self.tokens, self.layers = owner.model, tokens, []
        for call, stored in zip(self.read.calls, self.read.cache.layers):
            keys, values = stored.keys.contiguous(), stored.values.contiguous()
            queries = torch.empty(WINDOW, owner.config.num_attention_heads, keys.shape[-1])
            unused = keys.new_zeros(keys.shape[1:3])
            self.layers.append(Seen(call, Layer(library, queries, keys, values, unused, tokens // SHARE)))

    def restore(self):
        """The cache that the prefill has left, in the tensors of our layers."""
        for seen, stored in zip(self.layers, self.read.cache.layers):
            seen.layer.restore()
            stored.keys, stored.values = seen.layer.keys, seen.layer.values

    def press(self, press):
        """As a prefill under a press calls its hooks."""
        for seen in self.layers:
            module, inputs, named, output = seen.call
            press.forward_hook(module, inputs, named | {"past_key_values": self.read.cache}, output)

    def take_queries(self):
        for seen in self.layers:
            seen.take_queries()

    def evict(self, piece):
        if piece != "plan_keydiff":
            self.take_queries()
        for seen in self.layers:
            seen.layer.run(piece)
            seen.layer.run("compact")

    def kept(self):
        return torch.stack([seen.layer.kept() for seen in self.layers]).flatten(0, 1)

    def scores(self, press):
        """Of all layers and heads."""
        self.restore()
        found = []
        for seen in self.layers:
            module, _, named, output = seen.call
            layer = seen.layer
            found.append(press.score(module, named["hidden_states"], layer.keys, layer.values, output[1], named)[0])
        return torch.cat(found)

    def row(self, table, name, press, scorer):
        piece, hides = "plan_" + name.lower().replace("-", "_"), press is not scorer
        scored, budget = self.scores(scorer), self.layers[0].layer.budget

        def theirs(_):
            if hides:
                return torch.cat([seen.layer.masked_by(seen.call[0]) for seen in self.layers])
            return torch.zeros(scored.shape, dtype=torch.bool).scatter_(-1, scored.topk(budget, dim=-1).indices, True)

        ways = [
            Way("kvevict", lambda: self.evict(piece), lambda _: self.kept(), self.restore),
            Way("kvpress", lambda: self.press(press), theirs, self.restore),
        ]
        work = f"{name} on the model, {len(self.layers)} layers"
        return table.row(work, self.tokens, ways, same_up_to_ties(scored, 1e-5, not hides))


def rows(table, directory, library, tokens):
    it = Model(directory, library, tokens)
    ratio = it.layers[0].layer.ratio
    snapkv = kvpress.SnapKVPress(ratio, window_size=WINDOW, kernel_size=POOL)
    keydiff = kvpress.KeyDiffPress(ratio)
    ada = kvpress.AdaKVPress(snapkv, alpha_safeguard=ALPHA)
    added = []
    for name, press, scorer in (("SnapKV", snapkv, snapkv), ("KeyDiff", keydiff, keydiff), ("Ada-SnapKV", ada, snapkv)):
        mine, ratios = it.row(table, name, press, scorer)
        shares = [ms / (10 * it.seconds) for ms in (mine, mine * ratios["kvpress"])]
        added.append(f"{name} {shares[0]:.2g} % and {shares[1]:.2g} %")
    queries = measure([Way("both", it.take_queries, None)])[0]
    print(f"\nAdded to a prefill of {tokens} tokens, {it.seconds:.3g} s, by kvevict and kvpress: {', '.join(added)}.")
    print(f"Of the rows with SnapKV {queries:.3g} ms of both are the window's queries, projected anew.")

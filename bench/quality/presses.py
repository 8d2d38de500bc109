# SPDX-License-Identifier: Apache-2.0
"""The comparison of examples/compare by kvpress, through its own hooks: the same prompts, options and results.csv.

Needs the environment of tests/golden/make. Policies are named kvpress_…; what they are: README.md.
"""

import argparse, contextlib, copy, csv, json, sys, time
from dataclasses import dataclass
from pathlib import Path

import kvpress
import torch
from safetensors.torch import load_file
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

WINDOW = 32
COLUMNS = """policy task setting metric prompt_tokens budget_tokens kept_tokens score cache_bytes_before
cache_bytes_after pages_freed score_us plan_us move_us decode_tokens_per_s seed prompts""".split()


@dataclass
class Protected(kvpress.ScorerPress):
    """A press whose first and newest tokens come before all others, as in every policy of the lab."""

    press: kvpress.ScorerPress = None
    sinks: int = 0
    recent: int = WINDOW
    seconds: float = 0

    def score(self, *arguments, **named):
        start = time.perf_counter()
        out = self.press.score(*arguments, **named)
        best = out.max() + 1
        out[..., : self.sinks] = best
        out[..., out.shape[-1] - self.recent :] = best
        self.seconds += time.perf_counter() - start
        return out


def scorers(ratio):
    p = kvpress
    return {
        "streaming_llm": p.StreamingLLMPress(ratio),
        "knorm": p.KnormPress(ratio),
        "keydiff": p.KeyDiffPress(ratio),
        "snapkv": p.SnapKVPress(ratio, window_size=WINDOW),
        "tova": p.TOVAPress(ratio),
        "expected_attention": p.ExpectedAttentionPress(ratio),
    }


WRAPPED = {  # press, of whose scores
    "ada_snapkv": (kvpress.AdaKVPress, "snapkv"),
    "ada_keydiff": (kvpress.AdaKVPress, "keydiff"),
    "ada_expected_attention": (kvpress.AdaKVPress, "expected_attention"),
    "criticalkv": (kvpress.CriticalKVPress, "snapkv"),
    "ada_criticalkv": (kvpress.CriticalAdaKVPress, "snapkv"),
}
NAMES = ["full", *scorers(0), *WRAPPED]


def press_of(name, count, budget, sinks):
    """The press that keeps `budget` of `count` tokens a head, and its Protected: it truncates count·(1 − ratio)."""
    if name == "full":
        return None, None
    ratio = 1 - (budget + 0.5) / count
    wrap, base = WRAPPED.get(name, (None, name))
    inner = Protected(ratio, scorers(ratio)[base], sinks, 1 if base == "streaming_llm" else WINDOW)
    return (wrap(inner) if wrap else inner), inner


class Model:
    def __init__(self, directory):
        c = json.loads((Path(directory) / "config.json").read_text())
        if c["rope_factors"]:
            raise ValueError("scaled RoPE is not supported here")
        sizes = dict(hidden_size=c["hidden"], intermediate_size=c["ffn"], vocab_size=c["vocab"], head_dim=c["head_dim"])
        heads = dict(num_hidden_layers=c["layers"], num_attention_heads=c["heads"], num_key_value_heads=c["kv_heads"])
        rope = {"rope_type": "default", "rope_theta": c["rope_base"]}
        rest = dict(rms_norm_eps=c["rms_eps"], tie_word_embeddings=c["tied"], rope_parameters=rope)
        self.config = LlamaConfig(**sizes, **heads, **rest, max_position_embeddings=c["max_positions"])
        self.model = LlamaForCausalLM(self.config).eval()
        left = self.model.load_state_dict(load_file(Path(directory) / "model.safetensors"), strict=False)
        if left.unexpected_keys or set(left.missing_keys) - ({"lm_head.weight"} if c["tied"] else set()):
            raise ValueError(f"weights that do not fit: {left}")
        self.model.tie_weights()
        self.rows = c["layers"] * c["kv_heads"]
        self.token_bytes = 2 * 4 * c["head_dim"] * self.rows

    def prefill(self, ids):
        return Prompt(self, ids)


class Prompt:
    """A prefill, whose layers' inputs are kept: a press changes nothing of it, so its hooks are called afterwards."""

    def __init__(self, owner, ids):
        self.owner, self.count, self.cache, self.calls = owner, len(ids), DynamicCache(), []
        layers = owner.model.model.layers
        hooks = [x.self_attn.register_forward_hook(self.record, with_kwargs=True) for x in layers]
        self.last = owner.model(torch.tensor([ids]), past_key_values=self.cache, logits_to_keep=1).logits[0, -1]
        for hook in hooks:
            hook.remove()

    def record(self, module, inputs, named, output):
        self.calls.append((module, inputs, named, output))

    def pressed(self, press=None):
        """What is left of it; what an earlier press has masked is no longer."""
        cache = copy.deepcopy(self.cache)
        for module, *_ in self.calls:
            module.masked_key_indices = None
        with press(self.owner.model) if press else contextlib.nullcontext():
            for module, inputs, named, output in self.calls if press else []:
                press.forward_hook(module, inputs, named | {"past_key_values": cache}, output)
        return Sequence(self.owner, cache, self.count)


class Sequence:
    def __init__(self, owner, cache, position):
        self.owner, self.cache, self.position = owner, cache, position

    def read(self, ids):
        """Logits of further tokens. To hide a head's tokens kvpress looks for a key whose product with every query is
        negative; where many queries have none, they are read in two halves."""
        before = self.cache.get_seq_length()
        positions = torch.arange(self.position, self.position + len(ids))[None]
        try:
            out = self.owner.model(torch.tensor([ids]), past_key_values=self.cache, position_ids=positions)
        except ValueError:
            if len(ids) == 1:
                raise
            self.cache.crop(before)
            half = len(ids) // 2
            return torch.cat([self.read(ids[:half]), self.read(ids[half:])])
        self.position += len(ids)
        return out.logits[0]

    def kept(self):
        """Tokens of all layers and heads: kvpress masks what heads of unequal length lose."""
        total = 0
        for layer, stored in zip(self.owner.model.model.layers, self.cache.layers):
            total += stored.keys.shape[1] * stored.keys.shape[2]
            masked = getattr(layer.self_attn, "masked_key_indices", None)
            total -= 0 if masked is None else len(masked[1])
        return total


class Comparison:
    def __init__(self, model, shares, policies, seed):
        self.model, self.shares, self.policies, self.seed, self.rows = model, shares, policies, seed, []

    def contestants(self, prompt, sinks=0):
        """(policy, budget, its sequence, facts about it), one after the other: what kvpress masks belongs to the last
        press."""
        count = prompt.count
        for share in self.shares:
            for name in self.policies:
                if name == "full" and share != self.shares[0]:
                    continue
                budget = count if name == "full" else count * share // 100
                press, inner = press_of(name, count, budget, sinks)
                spent = timed_compress(press) if press else [0.0]
                sequence = prompt.pressed(press)
                kept, scored = sequence.kept() / self.model.rows, inner.seconds if inner else 0
                facts = {"kept_tokens": f"{kept:.6g}", "score_us": f"{scored * 1e6:.6g}"}
                facts |= {"plan_us": f"{(spent[0] - scored) * 1e6:.6g}", "move_us": 0, "pages_freed": 0}
                facts["cache_bytes_before"] = count * self.model.token_bytes
                facts["cache_bytes_after"] = sequence.cache.get_seq_length() * self.model.token_bytes
                yield name, budget, sequence, facts

    def add(self, name, task, setting, metric, ids, budget, facts, score, rate):
        at = {"policy": f"kvpress_{name}", "task": task, "setting": setting, "metric": metric}
        numbers = {"prompt_tokens": len(ids), "budget_tokens": budget, "score": f"{score:.6g}"}
        self.rows.append(at | numbers | facts | {"decode_tokens_per_s": f"{rate:.6g}", "seed": self.seed, "prompts": 1})

    def needle(self, prompt):
        context, question = prompt["context"], prompt["question"]
        for setting, ids, ask in (("agnostic", context, question), ("aware", context + question, [])):
            read = self.model.prefill(ids)
            for name, budget, sequence, facts in self.contestants(read):
                answer = [int((sequence.read(ask)[-1] if ask else read.last).argmax())]
                start = time.perf_counter()
                while len(answer) < prompt["reply_tokens"]:
                    answer.append(int(sequence.read(answer[-1:])[-1].argmax()))
                rate = (len(answer) - 1) / (time.perf_counter() - start)
                found = [holds(answer, one) for one in prompt["answers"]]
                score = sum(found) / len(found)
                self.add(name, prompt["task"], setting, "needle_rate", ids, budget, facts, score, rate)

    def text(self, passage, sinks, suffix):
        context, follow = passage["context"], passage["follow"]
        read = self.model.prefill(context)
        truth = read.pressed().read(follow).log_softmax(-1)
        for name, budget, sequence, facts in self.contestants(read, sinks):
            found = sequence.read(follow).log_softmax(-1)
            start = time.perf_counter()
            sequence.read(follow[:1])
            rate = 1 / (time.perf_counter() - start)
            kl = (truth.exp() * (truth - found)).sum(-1).mean().item()
            top1 = (truth.argmax(-1) == found.argmax(-1)).float().mean().item()
            for metric, score in (("kl_nats", kl), ("top1", top1)):
                self.add(name, passage["task"] + suffix, "text", metric, context, budget, facts, score, rate)


def timed_compress(press):
    """Seconds of all its calls, in a list that grows."""
    spent, compress = [0.0], press.compress

    def timed(*arguments):
        start = time.perf_counter()
        out = compress(*arguments)
        spent[0] += time.perf_counter() - start
        return out

    object.__setattr__(press, "compress", timed)
    return spent


def holds(answer, one):
    return any(answer[i : i + len(one)] == one for i in range(len(answer) - len(one) + 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shares", default="10,20,40")
    parser.add_argument("--policies", default=",".join(NAMES))
    options = parser.parse_args()
    if options.list:
        return print(" ".join(f"kvpress_{n}" for n in NAMES))
    names = [n.removeprefix("kvpress_") for n in options.policies.split(",")]
    if unknown := set(names) - set(NAMES):
        parser.error(f"no press is called {' or '.join(sorted(unknown))}; there are {' '.join(NAMES)}")
    tasks = json.loads(options.tasks.read_text())
    with torch.inference_mode():
        run = Comparison(Model(options.model), [int(s) for s in options.shares.split(",")], names, tasks["seed"])
        start = time.monotonic()
        for prompt in tasks["needle"]:
            run.needle(prompt)
            print(f"{prompt['task']}: {time.monotonic() - start:.0f} s", file=sys.stderr)
        for passage in tasks["text"]:
            run.text(passage, 0, "")
            if tasks["both_structures"]:
                run.text(passage, 4, "_4_sinks")
            print(f"{passage['task']}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    with open(options.out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(run.rows)


if __name__ == "__main__":
    main()

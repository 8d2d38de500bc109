# SPDX-License-Identifier: Apache-2.0
"""kvevict against what its user would run instead: pieces of work on the same tensors, in turn, in one process with one
thread, each checked against the others before it is timed. CPU milliseconds; ratios are a peer's time over kvevict's.

bench/run.sh peers builds the library and calls this; the environment is that of tests/golden/make. The column kvpress
is its own classes, on a stand-in for an attention module whose projection hands on queries that are ready; selection
and compaction of a layer, which it has not apart, are the PyTorch calls that they are made of. The column PyTorch is
the same work better told.
"""

import argparse, sys
from dataclasses import dataclass
from importlib.metadata import version
from types import SimpleNamespace

import kvpress
import torch

import model
from measure import Different, Table, Way, close, same, same_up_to_ties
from pieces import ALPHA, TYPES, Layer, load

Q_HEADS, HEADS, DIM, WINDOW, POOL = 32, 8, 128, 32, 7
GROUP = Q_HEADS // HEADS
SHARE = 5  # a fifth is kept
PARTS = ["8192", "32768", "model"]  # tokens of a layer; kvpress end to end
EIGEN, NAIVE = "Eigen, nth_element", "naive loops"


class Random:
    """A layer of random tensors, and what kvpress hands to score and compress."""

    def __init__(self, library, tokens, dtype):
        draw = torch.Generator().manual_seed(1)
        make = lambda *shape: torch.randn(*shape, generator=draw).to(dtype)
        self.hidden = make(1, WINDOW + 1, Q_HEADS * DIM)  # kvpress wants a prompt longer than the window
        queries, keys = self.hidden[0, 1:].view(WINDOW, Q_HEADS, DIM), make(1, HEADS, tokens, DIM)
        skew = torch.arange(HEADS)[:, None] + 8  # as attention is, in some heads more than in others
        given = torch.exp(-skew * torch.rand(HEADS, tokens, generator=draw))
        self.layer = Layer(library, queries, keys, make(1, HEADS, tokens, DIM), given, tokens // SHARE)
        self.config = SimpleNamespace(
            num_attention_heads=Q_HEADS, num_key_value_heads=HEADS, _attn_implementation="sdpa"
        )
        self.module = SimpleNamespace(config=self.config, head_dim=DIM, q_proj=lambda hidden: hidden)
        unturned = torch.ones(1, WINDOW, DIM, dtype=dtype), torch.zeros(1, WINDOW, DIM, dtype=dtype)
        self.kwargs = {"position_embeddings": unturned}

    def arguments(self, keys=None):
        keys = self.layer.keys if keys is None else keys
        return self.module, self.hidden, keys, self.layer.values, None, self.kwargs


@dataclass
class Given(kvpress.ScorerPress):
    """A press whose scores are there already; Ada writes into them."""

    ready: torch.Tensor = None

    def score(self, *_):
        return self.ready


def grouped_scores(layer):
    """Window scores without a copy of K for every query head."""
    queries = layer.queries.view(WINDOW, HEADS, GROUP, DIM).permute(1, 2, 0, 3).reshape(HEADS, -1, DIM)
    logits = torch.matmul(queries, layer.keys[0].transpose(1, 2)).div_(DIM**0.5)
    tail = logits.view(HEADS, GROUP, WINDOW, -1)[..., -WINDOW:]
    tail.masked_fill_(torch.ones(WINDOW, WINDOW, dtype=torch.bool).triu_(1), float("-inf"))
    scores = logits.softmax(-1, dtype=torch.float32).mean(1)[:, :-WINDOW]
    return torch.nn.functional.avg_pool1d(scores, POOL, stride=1, padding=POOL // 2)


def product_diversity(layer):
    """Key diversity as two products and the lengths."""
    keys = layer.keys[0]
    scale = 1 / torch.linalg.vector_norm(keys, dim=-1)
    mean = torch.nn.functional.normalize(torch.matmul(scale[:, None], keys), dim=-1)
    return -torch.matmul(keys, mean.transpose(1, 2))[..., 0] * scale


def scores(table, it):
    layer, before, plain = it.layer, it.layer.tokens - WINDOW, it.layer.dtype is torch.float32
    suffix = "" if plain else ", bf16"
    way = lambda who, piece, count=None: Way(who, lambda: layer.run(piece), lambda _: layer.scores(count))

    snapkv = kvpress.SnapKVPress(layer.ratio, window_size=WINDOW, kernel_size=POOL)
    ways = [
        way("kvevict", "scores", before),
        Way("kvpress", lambda: snapkv.score(*it.arguments()), lambda out: out[0, :, :before]),
        Way("PyTorch", lambda: grouped_scores(layer), lambda out: out),
    ]
    if plain:
        ways.append(way(EIGEN, "eigen_scores", before))
        if layer.tokens <= 8192:  # else seconds a run
            ways.append(way(NAIVE, "naive_scores", before))
    tolerance = 1e-4 if plain else 3e-2  # PyTorch rounds logits and weights to bf16
    table.row(f"window scores{suffix}", layer.tokens, ways, close(tolerance), ("kvpress", 12))

    lengths = lambda: torch.linalg.vector_norm(layer.values, dim=-1, dtype=torch.float32)
    knorm = kvpress.KnormPress(layer.ratio)
    ways = [
        way("kvevict", "norms"),
        Way("kvpress", lambda: knorm.score(*it.arguments(layer.values)), lambda out: out[0]),
        Way("PyTorch", lengths, lambda out: -out[0]),
    ]
    if plain:
        ways += [way(EIGEN, "eigen_norms"), way(NAIVE, "naive_norms")]
    table.row(f"norms of values{suffix}", layer.tokens, ways, close(1e-5), ("PyTorch", 1.2))
    if not plain:
        return

    keydiff = kvpress.KeyDiffPress(layer.ratio)
    ways = [
        way("kvevict", "diversity"),
        Way("kvpress", lambda: keydiff.score(*it.arguments()), lambda out: out[0]),
        Way("PyTorch", lambda: product_diversity(layer), lambda out: out),
        way(EIGEN, "eigen_diversity"),
        way(NAIVE, "naive_diversity"),
    ]
    table.row("key diversity", layer.tokens, ways, close(1e-5, 1), ("kvpress", 12))


def selection(table, it):
    layer, given, budget = it.layer, it.layer.given, it.layer.budget
    way = lambda who, piece: Way(who, lambda: layer.run(piece), lambda _: layer.kept())
    ways = [
        way("kvevict", "select"),
        Way("kvpress", lambda: given.topk(budget, dim=-1).indices, layer.mask_of),
        Way("PyTorch", lambda: given.topk(budget, dim=-1, sorted=False).indices, layer.mask_of),
        way(EIGEN, "nth_element_select"),
    ]
    table.row("selection, of each head", layer.tokens, ways, same_up_to_ties(given, 0, True))

    press = Given(layer.ratio, given[None].clone())
    ada = kvpress.AdaKVPress(press, alpha_safeguard=ALPHA)
    fresh = lambda: press.ready.copy_(given[None])
    run = lambda: ada.compress(*it.arguments())
    theirs = Way("kvpress", run, lambda _: layer.masked_by(it.module), fresh)

    def kept_of_layer():
        """The same rule by what is kept, without sorting it."""
        ranked = given.scatter(-1, given.topk(layer.forced, dim=-1, sorted=False).indices, torch.inf)
        return ranked.flatten().topk(HEADS * budget, sorted=False).indices

    flat = lambda indices: torch.zeros(given.numel(), dtype=torch.bool).index_fill_(0, indices, True).view(HEADS, -1)
    better = Way("PyTorch", kept_of_layer, flat)
    ways = [way("kvevict", "ada_forced"), theirs, better, way(EIGEN, "nth_element_ada_forced")]
    work, goal = "Ada's allocation and selection", ("kvpress", 40)
    table.row(work, layer.tokens, ways, same_up_to_ties(given, 0, False), goal)

    def by_paper(found, wanted):
        """As many tokens as kvpress, whose rule is another, and of each head the best."""
        if found.sum() != wanted.sum():
            raise Different(f"{found.sum()} tokens are kept, and {wanted.sum()}")
        best = [given[h].topk(int(found[h].sum())).indices for h in range(HEADS)]
        for h in range(HEADS):
            mask = torch.zeros(1, layer.tokens, dtype=torch.bool).index_fill_(-1, best[h], True)
            same_up_to_ties(given[h : h + 1], 0, True)(found[h : h + 1], mask)

    table.row("the same by the paper's rule", layer.tokens, [way("kvevict", "ada"), theirs], by_paper, goal)


def compaction(table, it):
    layer = it.layer
    layer.run("plan_snapkv")
    kept = layer.kept()
    best = torch.where(kept, layer.given, -1.0).topk(layer.budget, dim=-1).indices[None]  # in the order of topk
    rows = (kept.flatten().nonzero()[:, 0], [torch.empty(HEADS * layer.budget, DIM) for _ in range(2)])
    at = lambda indices: indices.unsqueeze(-1).expand(-1, -1, -1, DIM)
    tensors = layer.keys, layer.values
    front = lambda _: torch.cat([t[:, :, : layer.budget] for t in tensors])
    select = lambda: [torch.index_select(t.view(-1, DIM), 0, rows[0], out=o) for t, o in zip(tensors, rows[1])]
    stacked = lambda pair: torch.cat([t.view(1, HEADS, -1, DIM) for t in pair])
    in_order = lambda pair: torch.cat([t.gather(2, at(best.argsort(-1))) for t in pair])
    ways = [
        Way("kvevict", lambda: layer.run("compact"), front, layer.restore),
        Way("kvpress", lambda: [t.gather(2, at(best)).contiguous() for t in tensors], in_order, layer.restore),
        Way("PyTorch", select, stacked, layer.restore),
        Way(NAIVE, lambda: layer.run("naive_compact"), front, layer.restore),
    ]
    table.row("compaction to a fifth, K and V", layer.tokens, ways, same, ("kvpress", 10))
    layer.restore()


def whole(table, it):
    """Scores, selection and moves of a layer; kvpress' Ada moves nothing, it hides."""
    layer = it.layer
    snapkv = kvpress.SnapKVPress(layer.ratio, window_size=WINDOW, kernel_size=POOL)
    keydiff = kvpress.KeyDiffPress(layer.ratio)
    ada = kvpress.AdaKVPress(snapkv, alpha_safeguard=ALPHA)
    for work, press, score in (("SnapKV", snapkv, snapkv), ("KeyDiff", keydiff, keydiff), ("Ada-SnapKV", ada, snapkv)):
        layer.restore()
        scored = score.score(*it.arguments())[0]
        piece = "plan_" + work.lower().replace("-", "_")
        hides = press is ada
        best = layer.mask_of(scored.topk(layer.budget, dim=-1).indices)
        kept = (lambda _: layer.masked_by(it.module)) if hides else (lambda _: best)
        ways = [
            Way("kvevict", lambda: (layer.run(piece), layer.run("compact")), lambda _: layer.kept(), layer.restore),
            Way("kvpress", lambda: press.compress(*it.arguments()), kept, layer.restore),
        ]
        work = f"{work}, plan and compact" + (" (kvpress: plan and hide)" if hides else "")
        table.row(work, layer.tokens, ways, same_up_to_ties(scored, 1e-5, not hides))
    layer.restore()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="what kvevict_pieces.cpp became")
    parser.add_argument("--model", required=True, help="directory that examples/engine/prepare.py printed")
    parser.add_argument("parts", nargs="*", default=PARTS, choices=PARTS, metavar="PART", help=" ".join(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    library = load(options.library)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "kvpress", "transformers"))
    print(f"{versions}; {torch.backends.cpu.get_cpu_capability()}; Hq {Q_HEADS}, H {HEADS}, D {DIM}, W {WINDOW}\n")
    table = Table()
    with torch.inference_mode():
        for tokens in [n for n in (8192, 32768) if str(n) in options.parts]:
            for dtype in TYPES:
                it = Random(library, tokens, dtype)
                scores(table, it)
                if dtype is torch.float32:
                    selection(table, it)
                    compaction(table, it)
                    whole(table, it)
                it.layer.close()
        if "model" in options.parts:
            model.rows(table, options.model, library, 2000)
    print("\nmissed: " + ("; ".join(table.missed) or "none"))


if __name__ == "__main__":
    try:
        main()
    except Different as fault:
        sys.exit(f"peers.py: {fault}")

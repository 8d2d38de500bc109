# SPDX-License-Identifier: Apache-2.0
"""Ways of doing the same work: checked against each other, then timed in turn; a Markdown table of them."""

import gc, statistics, time
from dataclasses import dataclass

import torch

LEAST_RUNS, MOST_RUNS, SECONDS = 9, 51, 1.0  # of each way: as many as fit into so many seconds


class Different(Exception):
    """Two ways of the same work have given different results."""


@dataclass
class Way:
    who: str  # a column
    run: callable
    result: callable  # of what run has returned: what is compared
    prepare: callable = lambda: None  # before each run, not timed


def measure(ways):
    """CPU milliseconds of each, medians of runs in turn."""
    spent = [[] for _ in ways]
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    while len(spent[0]) < LEAST_RUNS or (
        len(spent[0]) < MOST_RUNS and time.perf_counter() - start < SECONDS * len(ways)
    ):
        for way, times in zip(ways, spent):
            way.prepare()
            begin = time.process_time()
            way.run()
            times.append(1e3 * (time.process_time() - begin))
    gc.enable()
    return [statistics.median(times) for times in spent]


def digits(ms):
    return f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"


def close(tolerance, least=1e-2):
    """Numbers, relative to `least` times the largest where they are smaller than that."""

    def check(found, wanted):
        found, wanted = found.float(), wanted.float()
        room = tolerance * torch.maximum(wanted.abs(), least * wanted.abs().max())
        apart = ((found - wanted).abs() / room).max().item()
        if not apart <= 1:
            raise Different(f"numbers are {apart:.3g} times as far apart as rounding allows")

    return check


def same(found, wanted):
    if not torch.equal(found, wanted):
        raise Different("not equal")


def same_up_to_ties(scores, tolerance, by_head):
    """Masks that differ only in tokens whose scores tie: with others of their head, or of the layer."""
    room = tolerance * scores.abs().max()

    def check(found, wanted):
        if found.shape != wanted.shape or found.sum() != wanted.sum():
            raise Different(f"{found.sum()} tokens are kept, and {wanted.sum()}")
        differ = found ^ wanted
        if by_head and not torch.equal(found.sum(-1), wanted.sum(-1)):
            raise Different("heads keep different counts")
        for one, which in zip(scores, differ) if by_head else [(scores, differ)]:
            if which.any() and one[which].max() - one[which].min() > room:
                raise Different(f"{which.sum()} tokens differ that do not tie")

    return check


class Table:
    COLUMNS = "kvpress", "PyTorch", "Eigen, nth_element", "naive loops"

    def __init__(self):
        print("| work | N | kvevict, ms | " + " | ".join(self.COLUMNS) + " | goal | |")
        print("|" + "---|" * (5 + len(self.COLUMNS)), flush=True)
        self.missed = []

    def row(self, work, tokens, ways, check=same, goal=None):
        """kvevict's way is the first. `goal`: (column, times)."""
        where = f"{work}, N {tokens}"
        ours = None
        for way in ways:
            way.prepare()
            found = way.result(way.run())
            try:
                if ours is None:
                    ours = found
                else:
                    check(ours, found)
            except Different as fault:
                raise Different(f"{where}: kvevict and {way.who}: {fault}") from None
        mine, *others = measure(ways)
        ratios = {way.who: ms / mine for way, ms in zip(ways[1:], others)}
        cells = {way.who: f"{digits(ms)}: {ratios[way.who]:.3g}×" for way, ms in zip(ways[1:], others)}
        wanted = verdict = ""
        if goal:
            column, times = goal
            wanted, verdict = f"{times}× {column}", "met" if ratios[column] >= times else "missed"
            if verdict == "missed":
                self.missed.append(f"{where}: {ratios[column]:.3g} of {times}")
        cells = [cells.get(column, "–") for column in self.COLUMNS]
        print("|", " | ".join([work, f"{tokens}", digits(mine), *cells, wanted, verdict]), "|", flush=True)
        return mine, ratios

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the tables of a stage, as Markdown, from results/STAGE/*.csv.

leaderboard.py STAGE… [--tokens N] [--against POLICY]

Means over prompts with 95 % intervals of a two-stage bootstrap (documents, then their prompts), of all lengths or those
of N tokens; with --against, each policy's difference from that one on the same prompts. Costs are medians.
"""

import argparse, csv, re, signal
from collections import defaultdict
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
PRESETS = HERE.parent.parent / "include/kvevict/presets/README.md"
DRAWS, SEED = 10_000, 1
FULL = ("full", "kvpress_full")
MEASURES = {  # of (setting, metric, with four sinks): title, digits, whether more is better
    ("agnostic", "needle_rate", False): ("needles, question unseen", 2, True),
    ("aware", "needle_rate", False): ("needles, question in view", 2, True),
    ("text", "kl_nats", False): ("KL on text, nats", 3, False),
    ("text", "top1", False): ("best token agrees", 3, True),
    ("text", "kl_nats", True): ("KL on text, 4 sinks for all", 3, False),
    ("decode", "kl_nats", False): ("KL while decoding", 3, False),
}


def read(stages, tokens):
    rows = []
    for stage in stages:
        files = sorted((HERE / "results" / stage).glob(f"*_{tokens or '*'}_*.csv"))
        if not files:
            raise SystemExit(f"leaderboard.py: results/{stage} holds no such part; run bench/run.sh quality {stage}")
        for file in files:
            with open(file, newline="") as opened:
                rows += [row | {"folder": stage} for row in csv.DictReader(opened)]
    for row in rows:
        share = round(100 * int(row["budget_tokens"]) / int(row["prompt_tokens"]))
        row["share"] = 100 if row["policy"] in FULL else share
        sinks = row["task"].endswith("_4_sinks")
        row["measure"] = (row["setting"], row["metric"], sinks)
        drawn = row["seed"], row.get("drawn")  # of two programs, only what answers the same prompts is paired
        row["prompt"] = (row["genre"], row["document"], drawn, row["task"].removesuffix("_4_sinks"))
        row["score"] = float(row["score"])
    common = set.intersection(*({r["prompt"] for r in rows if r["folder"] == stage} for stage in stages))
    if not common:
        raise SystemExit(f"leaderboard.py: {' and '.join(stages)} have no prompt in common")
    return [row for row in rows if row["prompt"] in common]


def evidence():
    """{preset: what it reads}, by the table of presets."""
    lines = PRESETS.read_text().split("| preset |")[1].splitlines()  # of the page's first table
    cells = [[c.strip() for c in line.split("|")] for line in lines]
    column = ["", "preset", *cells[0]].index("reads")
    return {c[1].strip("`"): c[column] for c in cells[2:] if len(c) > column}


def interval(values):
    """Mean and 95 % interval of {prompt: value}: documents are drawn, then prompts of each."""
    documents = defaultdict(list)
    for (genre, document, seed, _), value in values.items():
        documents[genre, document, seed].append(value)
    lists = [np.array(v) for v in documents.values()]
    random = np.random.default_rng(SEED)
    means = np.empty((DRAWS, len(lists)))
    for i, v in enumerate(lists):
        means[:, i] = v[random.integers(0, len(v), (DRAWS, len(v)))].mean(axis=1)
    sizes = np.array([len(v) for v in lists])
    drawn = random.integers(0, len(lists), (DRAWS, len(lists)))
    totals = (np.take_along_axis(means, drawn, 1) * sizes[drawn]).sum(1) / sizes[drawn].sum(1)
    return np.mean(np.concatenate(lists)), *np.percentile(totals, (2.5, 97.5))


def keep_common(values):
    """Keeps the prompts that every policy has, at one share at least; returns the documents of the others."""
    of = defaultdict(set)
    for (policy, _), here in values.items():
        of[policy] |= set(here)
    common = set.intersection(*of.values())
    if not common:
        raise SystemExit("leaderboard.py: no prompt was answered by every policy; finish the parts first")
    left_out = {p[1] for prompts in of.values() for p in prompts - common}
    for here in values.values():
        for prompt in set(here) - common:
            del here[prompt]
    return left_out


def table(rows, measure, against):
    title, digits, more = MEASURES[measure]
    values = defaultdict(dict)  # (policy, share): {prompt: score}
    cost = defaultdict(list)
    for row in rows:
        if row["measure"] == measure:
            values[row["policy"], row["share"]][row["prompt"]] = row["score"]
            cost[row["policy"]].append(float(row["score_us"]) + float(row["plan_us"]) + float(row["move_us"]))
    if not values:
        return
    left_out = keep_common(values)
    shares = sorted({s for p, s in values if p not in FULL})
    prompts = {p for v in values.values() for p in v}
    print(f"\n## {title}\n\n{len(prompts)} prompts of {len({p[:3] for p in prompts})} documents.", end=" ")
    if left_out:
        print(f"Not answered by every policy, and left out: {', '.join(sorted(left_out))}.", end=" ")
    print("More is better." if more else "Less is better.", end=f" Differences from {against}." if against else "")
    print("\n")
    columns = ["policy", *(f"{s} %" for s in shares), *([] if against else ["reads", "ms a prompt"])]
    line = lambda cells: print(f"| {' | '.join(cells)} |")
    line(columns), line(["---"] * len(columns))
    reads = evidence()

    def cell(policy, share):
        here = values.get((policy, share), {})
        if against and policy not in (*FULL, against):
            base = values.get((against, share), {})
            here = {p: v - base[p] for p, v in here.items() if p in base}
        if not here:
            return "–"
        mean, low, high = interval(here)
        sign = "+" if against and policy not in (*FULL, against) else ""
        mean, low, high = (re.sub(r"\b0\.", ".", f"{x:{sign}.{digits}f}") for x in (mean, low, high))
        return f"{mean} ({low} … {high})"

    def rank(policy):
        found = [np.mean(list(values[policy, s].values())) for s in shares if (policy, s) in values]
        return -np.mean(found) if more else np.mean(found)

    policies = sorted({p for p, _ in values if p not in FULL}, key=lambda p: (rank(p), p))
    for whole in FULL:
        if (whole, 100) in values:
            line([whole, *[cell(whole, 100)] * len(shares), *([] if against else ["–", "–"])])
    for policy in policies:
        took = "–" if policy.startswith("kvpress_") else f"{np.median(cost[policy]) / 1000:,.1f}"
        line([policy, *(cell(policy, s) for s in shares), *([] if against else [reads.get(policy, "–"), took])])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="+", help="of several, the prompts that all of them have")
    parser.add_argument("--tokens", type=int, help="a length of prompts; all unless said")
    parser.add_argument("--against", help="a policy")
    options = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # of a table's beginning, as by head
    rows = read(options.stage, options.tokens)
    policies = {row["policy"] for row in rows}
    if options.against and options.against not in policies:
        parser.error(f"--against: results/{' and '.join(options.stage)} have {', '.join(sorted(policies))}")
    list_of = lambda key: ", ".join(sorted({row[key] for row in rows}))
    print(f"# {', '.join(options.stage)}{f', {options.tokens} tokens' if options.tokens else ''}\n")
    print(f"Of {list_of('date')}, commits {list_of('commit')}, seeds {list_of('seed')}.")
    for measure in MEASURES:
        table(rows, measure, options.against)


if __name__ == "__main__":
    main()

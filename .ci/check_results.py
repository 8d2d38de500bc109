#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks results.csv: every row of the table is there, and every kept count is the budget.

check_results.py results.csv [TARGET...]    of gates that keep TARGET per cent; 27 and 50 unless said
"""

import csv
import math
import sys

COLUMNS = (
    "policy task setting metric prompt_tokens budget_tokens kept_tokens score cache_bytes_before cache_bytes_after "
    "pages_freed score_us plan_us move_us decode_tokens_per_s seed"
).split()
POLICIES = (  # run.sh's own choice
    "full random streaming_llm h2o snapkv ahakv ada_snapkv ada_pyramidkv distinct_and_attended oracle"
).split()
SHARES = (10, 20, 40)  # per cent of the prompt
GATES = ("attention_gate", "attention_gate_cache")  # they decide how much they keep, and the others get as much
targets_of_gates = (27, 50)
METRICS = {"aware": ["needle_rate"], "agnostic": ["needle_rate"], "text": ["kl_nats", "top1"]}
DECODERS = "h2o ahakv streaming_llm".split()
RANGES = {"needle_rate": (0, 1), "top1": (0, 1), "kl_nats": (-1e-6, math.inf)}

passed = 0
failures = []


def check(condition, message):
    global passed
    if condition:
        passed += 1
    else:
        failures.append(message)


def name(row):
    return "/".join(row[c] for c in ("policy", "task", "setting", "budget_tokens", "metric"))


def targets(row):
    """The whole numbers next to the gates' targets."""
    near = lambda x: (math.floor(x), math.ceil(x))
    return (
        [n for t in targets_of_gates for n in near(int(row["prompt_tokens"]) * t / 100)]
        if row["setting"] != "decode"
        else []
    )


def check_row(row):
    """Numbers are numbers, and exactly the budget is kept."""
    try:
        prompt, budget = (int(row[c]) for c in ("prompt_tokens", "budget_tokens"))
        kept = float(row["kept_tokens"])
        before, after = int(row["cache_bytes_before"]), int(row["cache_bytes_after"])
        score = float(row["score"])
        rest = [float(row[c]) for c in ("pages_freed", "score_us", "plan_us", "move_us", "decode_tokens_per_s", "seed")]
    except (TypeError, ValueError) as error:
        check(False, f"{name(row)}: {error}")
        return
    low, high = RANGES.get(row["metric"], (math.inf, -math.inf))
    check(low <= score <= high, f"{name(row)}: score {score} of metric {row['metric']!r}")
    check(all(math.isfinite(x) and x >= 0 for x in rest), f"{name(row)}: a time or count is negative or not finite")
    check(0 < after <= before, f"{name(row)}: cache of {before} bytes became {after}")
    if budget in targets(row):
        check(0 < kept < prompt, f"{name(row)}: kept {kept} tokens")
    elif row["policy"] != "full":
        check(kept == budget, f"{name(row)}: kept {kept} tokens, budget {budget}")
        if row["setting"] != "decode":
            shares = [prompt * s // 100 for s in SHARES]
            check(budget in shares, f"{name(row)}: budget {budget} is none of {shares}")


def check_gates(rows):
    """At each target of the gates every other policy keeps what they kept, to a token a head."""
    for setting, task, target in sorted(
        {(r["setting"], r["task"], r["budget_tokens"]) for r in rows if int(r["budget_tokens"]) in targets(r)}
    ):
        here = [r for r in rows if (r["setting"], r["task"], r["budget_tokens"]) == (setting, task, target)]
        kept = {r["policy"]: float(r["kept_tokens"]) for r in here}
        check(all(g in kept for g in GATES), f"{task}/{setting}/{target}: no gates")
        most = max(kept.get(g, 0) for g in GATES)
        for policy, tokens in kept.items():
            if policy not in GATES and policy != "full":
                check(
                    most - 1e-3 <= tokens <= most * 1.1 + 1,
                    f"{policy}/{task}/{setting}/{target}: kept {tokens} tokens, the gates {most}",
                )
    for setting in METRICS:
        found = {
            round(100 * int(r["budget_tokens"]) / int(r["prompt_tokens"]))
            for r in rows
            if r["policy"] in GATES and r["setting"] == setting
        }
        check(
            found == set(targets_of_gates),
            f"{setting}: gates at targets {sorted(found)}, expected {targets_of_gates}",
        )


def check_table(rows):
    """No combination of policy, task, setting, budget and metric is missing or there twice."""
    keys = [name(r) for r in rows]
    check(
        len(keys) == len(set(keys)),
        "a row is there twice: " + ", ".join(sorted({k for k in keys if keys.count(k) > 1})),
    )
    for setting, metrics in METRICS.items():
        tasks = sorted({r["task"] for r in rows if r["setting"] == setting})
        check(tasks, f"no task of setting {setting}")
        for task in tasks:
            for metric in metrics:
                for policy in POLICIES:
                    here = [
                        r
                        for r in rows
                        if (r["policy"], r["task"], r["setting"], r["metric"]) == (policy, task, setting, metric)
                    ]
                    budgets = {r["budget_tokens"] for r in here}
                    wanted = 1 if policy == "full" else len(SHARES)
                    check(
                        len(budgets) >= wanted,
                        f"{policy}/{task}/{setting}/{metric}: {len(budgets)} of {wanted} budgets",
                    )
    check_gates(rows)
    for policy in DECODERS:
        check(any(r["policy"] == policy and r["setting"] == "decode" for r in rows), f"{policy}: no decode row")


def main():
    global targets_of_gates
    if len(sys.argv) < 2 or not all(a.isdigit() for a in sys.argv[2:]):
        sys.exit("usage: check_results.py results.csv [TARGET...]")
    targets_of_gates = tuple(map(int, sys.argv[2:])) or targets_of_gates
    try:
        with open(sys.argv[1], newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        sys.exit(f"check_results.py: {error}")
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
    check(not missing, f"columns are missing: {missing}")
    if not missing:
        for row in rows:
            check_row(row)
        check_table(rows)
    for failure in failures:
        print(f"failed: {failure}")
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs what the lab has no result of yet; see README.md. Called by bench/run.sh quality, which prepares all."""

import argparse, csv, datetime, json, subprocess, sys, tempfile, time
from pathlib import Path

from documents import digest, each
from prompts import Lab
from tokens import Tokens

HERE = Path(__file__).resolve().parent
STAGES = {  # split, genres, lengths, needles of a kind, shares, both structures and decoding
    "screen": ("selection", ("scripture", "source"), (1000,), 1, (20,), False),
    "trial": ("selection", None, (1000,), 1, (10, 20, 40), False),
    "grid": ("selection", None, (1000, 2000), 2, (5, 10, 20, 40), True),
    "report": ("report", None, (1000, 2000), 2, (5, 10, 20, 40), True),
}
ADDED = "stage genre document text commit date".split()


def commit():
    """HEAD, with a mark where the tree differs from it."""
    git = lambda *a: subprocess.run(["git", "-C", HERE, *a], capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--", ":/include", ":/examples", ":/bench/quality/*.py")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def rows_of(part):
    if not part.exists():
        return []
    with open(part, newline="") as file:
        return list(csv.DictReader(file))


def run(options, policies, tokens, stage, genre, name, text, seed):
    """One part: its prompts, the comparison of these policies, its rows as a list."""
    _, _, lengths, needles, shares, thorough = STAGES[stage]
    tasks = Lab(tokens, text, name, seed).tasks(tokens.config["name"], lengths, needles, thorough, thorough)
    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / "tasks.json"
        file.write_text(json.dumps(tasks))
        command = [options.program, "--model", options.model, "--tasks", file, "--out", out]
        command += ["--shares", ",".join(map(str, shares)), "--policies", ",".join(policies)]
        subprocess.run(list(map(str, command)), check=True)
        rows = rows_of(Path(out) / "results.csv")
    added = dict(zip(ADDED, (stage, genre, name, digest(text), commit(), datetime.date.today().isoformat())))
    return [added | row for row in rows]


def save(part, rows):
    with open(part.with_suffix(".new"), "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.with_suffix(".new").rename(part)


def asked(options):
    """Names of policies. Gates are not among all of them: they keep what they were trained to."""
    if options.policies != "all":
        return options.policies.split(",")
    listed = subprocess.run([options.program, "--list"], capture_output=True, text=True, check=True)
    return [p for p in listed.stdout.split() if p != "attention_gate"]


def without_result(folder, part, policies):
    """Those of the policies that the part lacks; results of another text are refused."""
    _, name, text, seed = part
    file = folder / f"{name}_{seed}.csv"
    rows = rows_of(file)
    if any(row["text"] != digest(text) for row in rows):
        sys.exit(f"quality: {file} is of another edition of {name} than this machine has; move it away, then run again")
    there = {row["policy"] for row in rows}
    return [p for p in policies if p not in there]


def main():
    about = "Runs what the lab has no result of yet: policies of parts."
    parser = argparse.ArgumentParser(prog="bench/run.sh quality", description=about)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--policies", default="all", help="names, with commas between them")
    parser.add_argument("--seeds", default="1", help="numbers, with commas between them; each is a part of its own")
    parser.add_argument("--hours", type=float, default=2.5, help="begin no part after so long")
    parser.add_argument("--model", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    tokens = Tokens(options.model)
    split, genres = STAGES[options.stage][:2]
    folder = HERE / "results" / options.stage
    folder.mkdir(parents=True, exist_ok=True)
    parts = [(g, n, t, int(s)) for s in options.seeds.split(",") for g, n, t in each(split, genres)]
    policies = asked(options)
    left = [(p, missing) for p in parts if (missing := without_result(folder, p, policies))]
    print(f"{len(parts) - len(left)} of {len(parts)} parts are there", file=sys.stderr)
    begin = time.monotonic()
    for done, ((genre, name, text, seed), policies) in enumerate(left):
        spent = time.monotonic() - begin
        if spent > options.hours * 3600:
            sys.exit(f"{len(left) - done} parts are left; run it again")
        ahead = f", about {spent / done * (len(left) - done) / 60:.0f} min left" if done else ""
        print(f"== {genre}, {name}, seed {seed}: part {done + 1} of {len(left)}{ahead}", file=sys.stderr)
        part = folder / f"{name}_{seed}.csv"
        save(part, rows_of(part) + run(options, policies, tokens, options.stage, genre, name, text, seed))


if __name__ == "__main__":
    main()

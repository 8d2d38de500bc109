#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs parts of the lab that have no result yet; see README.md. Called by bench/run.sh quality, which prepares all."""

import argparse, csv, datetime, json, subprocess, sys, tempfile, time
from pathlib import Path

from documents import digest, each
from prompts import Lab
from tokens import Tokens

HERE = Path(__file__).resolve().parent
STAGES = {  # split, genres, lengths, needles of a kind, shares, both structures and decoding
    "screen": ("selection", ("scripture", "source"), (1000,), 1, (20,), False),
    "grid": ("selection", None, (1000, 2000), 2, (5, 10, 20, 40), True),
    "report": ("report", None, (1000, 2000), 2, (5, 10, 20, 40), True),
}
ADDED = "stage genre document text commit date".split()


def commit():
    """HEAD, with a mark where the tree differs from it."""
    git = lambda *a: subprocess.run(["git", "-C", HERE, *a], capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--", ":/include", ":/examples", ":/bench/quality/*.py")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def run(options, tokens, stage, genre, name, text, seed):
    """One part: its prompts, the comparison, its rows as a list."""
    _, _, lengths, needles, shares, thorough = STAGES[stage]
    tasks = Lab(tokens, text, name, seed).tasks(tokens.config["name"], lengths, needles, thorough, thorough)
    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / "tasks.json"
        file.write_text(json.dumps(tasks))
        command = [options.program, "--model", options.model, "--tasks", file, "--out", out]
        command += ["--shares", ",".join(map(str, shares))]
        command += ["--policies", options.policies] if options.policies != "all" else []
        subprocess.run(list(map(str, command)), check=True)
        with open(Path(out) / "results.csv", newline="") as results:
            rows = list(csv.DictReader(results))
    added = dict(zip(ADDED, (stage, genre, name, digest(text), commit(), datetime.date.today().isoformat())))
    return [added | row for row in rows]


def main():
    about = "Runs the lab's parts that have no result yet."
    parser = argparse.ArgumentParser(prog="bench/run.sh quality", description=about)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--policies", default="all", help="names, with commas between them; a part has one set of them")
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
    left = [p for p in parts if not (folder / f"{p[1]}_{p[3]}.csv").exists()]
    print(f"{len(parts) - len(left)} of {len(parts)} parts are there", file=sys.stderr)
    begin = time.monotonic()
    for done, (genre, name, text, seed) in enumerate(left):
        spent = time.monotonic() - begin
        if spent > options.hours * 3600:
            sys.exit(f"{len(left) - done} parts are left; run it again")
        ahead = f", about {spent / done * (len(left) - done) / 60:.0f} min left" if done else ""
        print(f"== {genre}, {name}, seed {seed}: part {done + 1} of {len(left)}{ahead}", file=sys.stderr)
        rows = run(options, tokens, options.stage, genre, name, text, seed)
        part = folder / f"{name}_{seed}.csv"
        with open(part.with_suffix(".new"), "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        part.with_suffix(".new").rename(part)


if __name__ == "__main__":
    main()

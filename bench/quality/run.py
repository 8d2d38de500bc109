#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs what the lab has no result of yet; see README.md. Called by bench/run.sh quality, which prepares all."""

import argparse, csv, dataclasses, datetime, json, subprocess, sys, tempfile, time
from pathlib import Path

from documents import DOCUMENTS, digest, each

HERE = Path(__file__).resolve().parent
STAGES = {  # split, genres, lengths, needles of a kind, shares, both structures and decoding
    "screen": ("selection", ("scripture", "source"), (1000,), 1, (20,), False),
    "trial": ("selection", None, (1000,), 1, (10, 20, 40), False),
    "grid": ("selection", None, (1000, 2000), 2, (5, 10, 20, 40), True),
    "report": ("report", None, (1000, 2000), 2, (10, 20, 40), True),
    "long": ("report", None, (4000,), 1, (10, 20, 40), False),
}


@dataclasses.dataclass
class Part:
    """What is run in one go: needles of one length, and with those of 1 000 tokens a text and decoding."""

    genre: str
    name: str
    text: str
    seed: int
    length: int

    def file(self, folder):
        return HERE / "results" / folder / f"{self.name}_{self.length}_{self.seed}.csv"


def parts_of(stage, seeds):
    """One length of all documents, then the next."""
    split, genres, lengths = STAGES[stage][:3]
    documents = list(each(split, genres))
    return [Part(*d, seed, n) for n in lengths for seed in seeds for d in documents]


ADDED = "stage genre document text drawn commit date".split()  # drawn: the SHA-256 of the prompts


def commit():
    """HEAD, with a mark where the tree differs from it."""
    git = lambda *a: subprocess.run(["git", "-C", HERE, *a], capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--", ":/include", ":/examples", ":/bench/quality/*.py")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def rows_of(file):
    if not file.exists():
        return []
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


def tasks_of(stage, tokens, part):
    """A part's prompts, as JSON."""
    from prompts import Lab  # not above: it needs packages, which are not there yet when only arguments are checked

    needles, _, thorough = STAGES[stage][3:]
    lab = Lab(tokens, part.text, part.name, part.length, part.seed)
    text = part.length == 1000
    return json.dumps(lab.tasks(tokens.config["name"], needles, text, text and thorough))


def run(options, policies, part, tasks):
    """The comparison of these policies on a part's prompts: its rows as a list."""
    shares = STAGES[options.stage][4]
    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / "tasks.json"
        file.write_text(tasks)
        command = [*options.program, "--model", options.model, "--tasks", file, "--out", out]
        command += ["--shares", ",".join(map(str, shares)), "--policies", ",".join(policies)]
        if subprocess.run(list(map(str, command))).returncode != 0:
            sys.exit(f"quality: the comparison of {part.name} has failed, see above; what was done before is kept")
        rows = rows_of(Path(out) / "results.csv")
    drawn, today = (digest(part.text), digest(tasks)), datetime.date.today().isoformat()
    added = dict(zip(ADDED, (options.stage, part.genre, part.name, *drawn, commit(), today)))
    return [added | row for row in rows]


def save(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_suffix(".new"), "w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    file.with_suffix(".new").rename(file)


def asked(options, parser):
    """Names of policies. Gates are not among them: they keep what they were trained to."""
    done = subprocess.run([*options.program, "--list"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit("quality: the program cannot list its policies, see above")
    known = [p for p in done.stdout.split() if p != "attention_gate"]
    if options.policies == "all":
        return known
    named = options.policies.split(",")
    if unknown := [p for p in named if p not in known]:
        parser.error(f"--policies: there is no '{unknown[0]}'; there are {', '.join(known)}")
    return named


def seeds(text):
    """Whole numbers with commas between them, as argparse wants it."""
    return [int(s) for s in text.split(",")]


def hours(text):
    if not 0 < (x := float(text)) < 1e6:
        raise argparse.ArgumentTypeError(f"give a number above 0, not {text}")
    return x


def without_result(file, part, policies):
    """Those of the policies that the part lacks; results of another text are refused."""
    rows = rows_of(file)
    if any(row["text"] != digest(part.text) for row in rows):
        sys.exit(f"quality: {file} is of another edition than this machine has; move it away, then run again")
    there = {row["policy"] for row in rows}
    return [p for p in policies if p not in there]


def main():
    about = "Runs what the lab has no result of yet: policies of parts."
    parser = argparse.ArgumentParser(prog="bench/run.sh quality", description=about)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--policies", default="all", help="names, with commas between them")
    each_a_part = "whole numbers, with commas between them; each is a part of its own"
    parser.add_argument("--seeds", type=seeds, default="1", help=each_a_part)
    parser.add_argument("--documents", help="names, with commas between them; all unless said")
    parser.add_argument("--hours", type=hours, default=2.5, help="begin no part after so long")
    parser.add_argument("--model", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--program", required=True, nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--into", default="", help=argparse.SUPPRESS)  # of results of another program
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)  # arguments, with Python alone
    options = parser.parse_args()
    split, genres = STAGES[options.stage][:2]
    known = {name for genre, of in DOCUMENTS[split].items() if genres is None or genre in genres for name in of}
    named = set(options.documents.split(",")) if options.documents else known
    if unknown := named - known:
        has = f"has no {', '.join(sorted(unknown))}, but {', '.join(sorted(known))}"
        parser.error(f"--documents: {options.stage} {has}")
    if options.check:
        return
    from tokens import Tokens

    policies = asked(options, parser)
    tokens = Tokens(options.model)
    parts = [p for p in parts_of(options.stage, options.seeds) if p.name in named]
    folder = options.into + options.stage
    left = [(p, missing) for p in parts if (missing := without_result(p.file(folder), p, policies))]
    print(f"{len(parts) - len(left)} of {len(parts)} parts are there", file=sys.stderr)
    begin = time.monotonic()
    for done, (part, policies) in enumerate(left):
        spent = time.monotonic() - begin
        if spent > options.hours * 3600:
            sys.exit(f"{len(left) - done} parts are left; run it again")
        ahead = f", about {spent / done * (len(left) - done) / 60:.0f} min left" if done else ""
        file = part.file(folder)
        print(f"== {file.stem}: part {done + 1} of {len(left)}{ahead}", file=sys.stderr)
        there, tasks = rows_of(file), tasks_of(options.stage, tokens, part)
        if any(row.get("drawn") != digest(tasks) for row in there):
            sys.exit(f"quality: the prompts of {file} were drawn by other code; move it away, then run again")
        save(file, there + run(options, policies, part, tasks))


if __name__ == "__main__":
    main()

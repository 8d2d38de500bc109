#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""keep_sets.cpp under every compiler of this machine and many flags: all programs print the same keep sets.

tests/flags/matrix.py [--full] [--seed N] [--record]

They are those that include/kvevict/CHANGELOG.md has of this version: a changed keep set is a breaking change. --record
writes them there, on purpose.

Every pair of settings meets in one cell at least; which cells those are goes by the seed, that is the commit unless one
is given; tests/run.sh --turn takes a third of them, --full all cells. What a machine lacks (libc++, 32-bit libraries)
is printed, and left out.
"""

import argparse
import concurrent.futures
import itertools
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent
root = here.parent.parent
changelog = root / "include/kvevict/CHANGELOG.md"
FACTORS = {
    "compiler": [],
    "standard": ["-std=c++20", "-std=c++2b"],
    "optimisation": ["-O0", "-O1", "-O2", "-O3"],
    "library": ["", "-stdlib=libc++"],
    "runtime": ["", "-fno-rtti", "-fno-exceptions"],
    "bits": ["", "-m32 -msse2 -mfpmath=sse"],
}
# Headers of the kernel, which Debian links for -m32 in g++-multilib alone, a package that the AArch64 compiler
# excludes.
KERNEL = "-idirafter /usr/include/x86_64-linux-gnu"
NEEDED = ("compiler", "library", "bits")  # what a machine may lack


def compilers():
    """Each version once, under its shortest name."""
    found = {}
    for name in ["g++", "clang++"] + [f"{c}-{v}" for c in ("g++", "clang++") for v in range(12, 30)]:
        if shutil.which(name):
            version = subprocess.run([name, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
            found.setdefault(version.removeprefix(name), name)
    return list(found.values())


def run(cell, source, folder):
    """What the program prints, or None and what went wrong."""
    program = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "program"
    command = [*" ".join(cell).split(), *KERNEL.split(), f"-I{root}/include", str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, "does not compile:\n" + done.stderr[:2000]
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    program.unlink()
    return (done.stdout, "") if done.returncode == 0 else (None, f"exit status {done.returncode}:\n{done.stdout}")


def possible(folder):
    """All cells that this machine can build."""
    small = folder / "small.cpp"
    small.write_text("#include <atomic>\n#include <vector>\nint main() {}\n")
    at = [list(FACTORS).index(name) for name in NEEDED]
    lacking = set()
    for choice in itertools.product(*(FACTORS[name] for name in NEEDED)):
        if run(choice, small, folder)[0] is None:
            lacking.add(choice)
            if not (choice[0].startswith("g++") and "libc++" in choice[1]):
                print("not on this machine:", " ".join(choice))
    return [c for c in itertools.product(*FACTORS.values()) if tuple(c[i] for i in at) not in lacking]


def cover(cells, seed):
    """Few cells in which every pair of settings meets that meets in any."""
    order = random.Random(seed).sample(cells, len(cells))
    pairs = lambda cell: set(itertools.combinations(enumerate(cell), 2))
    missing, chosen = set().union(*map(pairs, order)), []
    while missing:
        best = max(order, key=lambda cell: len(pairs(cell) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def commit():
    try:
        git = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        return int(git.stdout[:8], 16)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 1


def version():
    text = (root / "include/kvevict/version.hpp").read_text()
    return ".".join(re.findall(r"define KVEVICT_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text))


def compared(printed, record):
    """Whether they are the recorded ones of this version; says which are not, or records them."""
    text = changelog.read_text()
    block = re.compile(rf"(?<=^## {re.escape(version())}\n)(.*?^```text\n)(.*?)(?=^```$)", re.DOTALL | re.MULTILINE)
    found = block.search(text)
    if not found or "\n## " in found[1]:
        print(f"FAILED {changelog.name} has no keep sets of {version()}")
        return False
    if record:
        changelog.write_text(text[: found.start(2)] + printed + text[found.end(2) :])
        return True
    before, now = found[2].splitlines(), printed.splitlines()
    for line in sorted(set(before) ^ set(now)):
        print("FAILED", "no longer:" if line in before else "not recorded:", line)
    if before != now:
        print(f"FAILED keep sets of {version()} in {changelog.name}: on purpose? Raise the version, and give --record")
    return before == now


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    full = bool(os.environ.get("KVEVICT_SIMT_FULL"))  # tests/run.sh --full
    arguments.add_argument("--full", action="store_true", default=full)
    arguments.add_argument("--seed", type=int, default=commit())
    arguments.add_argument("--record", action="store_true")
    given = arguments.parse_args()
    FACTORS["compiler"] = compilers()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        all_cells = possible(folder)
        if not all_cells:
            sys.exit("matrix.py: no compiler builds a program here")
        cells = all_cells if given.full else cover(all_cells, given.seed)
        if "KVEVICT_TURN" in os.environ:  # tests/run.sh --turn
            cells = cells[given.seed % 3 :: 3]
        print(f"{len(cells)} of {len(all_cells)} cells, seed {given.seed}", flush=True)
        expected, failed = None, 0
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for cell, (printed, wrong) in zip(cells, pool.map(lambda c: run(c, here / "keep_sets.cpp", folder), cells)):
                expected = expected or printed
                if printed is not None and printed != expected:
                    printed, wrong = None, "other keep sets:\n" + printed
                failed += printed is None
                print("ok    " if printed else "FAILED", " ".join(filter(None, cell)), wrong, flush=True)
    print(expected, end="")
    failed += not compared(expected or "", given.record)
    print(f"{len(cells) + 1 - failed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()

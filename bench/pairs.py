#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A program of bench/time here and in an older tree, by turns, so that a machine's moods meet both alike.

    bench/pairs.py OTHER_TREE PROGRAM [--pairs N] [--filter REGEX]

Prints for every benchmark that both have the median of CPU time now / before over N pairs (15 unless said), and its
quartiles. Both are built with -O3 -march=native. A tree is a checkout: include/ and bench/ are read.
"""

import argparse, json, pathlib, statistics, subprocess, sys, tempfile

here = pathlib.Path(__file__).resolve().parent.parent


def build(tree, program, out):
    source = tree / f"bench/time/{program}.cpp"
    flags = ["-std=c++20", "-O3", "-DNDEBUG", "-march=native", f"-I{tree}/include", f"-I{tree}/bench"]
    libraries = ["-isystem", "/usr/include/eigen3", "-lbenchmark", "-pthread"]
    if subprocess.run(["g++", *flags, source, *libraries, "-o", out]).returncode != 0:
        sys.exit(f"pairs.py: {source} does not build, see above")
    return out


def times(binary, pattern):
    command = [binary, "--benchmark_min_time=0.02", "--benchmark_format=json", f"--benchmark_filter={pattern}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout:
        sys.exit(f"pairs.py: nothing was measured: {done.stderr.strip()}")
    benchmarks = json.loads(done.stdout)["benchmarks"]
    for b in benchmarks:
        if "error_occurred" in b:  # its time is 0
            sys.exit(f"pairs.py: {b['name']}: {b['error_message']}")
    return {b["name"]: b["cpu_time"] for b in benchmarks if "cpu_time" in b}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("tree", type=pathlib.Path)
    arguments.add_argument("program")
    arguments.add_argument("--pairs", type=int, default=15)
    arguments.add_argument("--filter", default=".")
    given = arguments.parse_args()
    for tree in (here, given.tree):
        if not (tree / f"bench/time/{given.program}.cpp").is_file():
            arguments.error(f"{tree} has no bench/time/{given.program}.cpp")
    if given.pairs < 2:
        arguments.error("quartiles need two pairs at least")
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        now = build(here, given.program, pathlib.Path(folder) / "now")
        before = build(given.tree, given.program, pathlib.Path(folder) / "before")
        for i in range(given.pairs):
            order = (now, before) if i % 2 else (before, now)
            taken = {binary: times(binary, given.filter) for binary in order}
            for name in taken[now].keys() & taken[before].keys():
                ratios.setdefault(name, []).append(taken[now][name] / taken[before][name])
    if not ratios:
        sys.exit(f"pairs.py: no benchmark of {given.program} has the same name in both trees")
    for name, all_of in sorted(ratios.items()):
        low, middle, high = statistics.quantiles(all_of)
        print(f"{name:70} {middle:.3f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()

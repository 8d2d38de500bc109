#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures every target of targets.toml and prints a table: the figure of each run, and whether it is met.

    bench/run.sh targets [--only WORD] [--runs N] [--repetitions N]

All programs run N times one after the other (twice unless said). In a run the benchmarks of a program take turns,
nine times each, and a figure is a ratio of medians or the median of shares of a roof that is measured beside each
repetition. The verdict is that of the median of the runs' figures, compared as they are printed. Time is CPU time of
the process, of several threads the wall's. It fails where a program finds a wrong result, not where a target is missed.
"""

import argparse, collections, datetime, json, math, os, pathlib, re, statistics, subprocess, sys, tempfile
import textwrap, tomllib

here = pathlib.Path(__file__).resolve().parent
folders = {"native": "build/bench", "plain": "build/bench-plain"}


def build(targets):
    for kind, program in sorted({(t["build"], t["program"]) for t in targets}):
        command = ["cmake", "--build", here.parent / folders[kind], "--target", f"bench_{program}"]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
            sys.exit(f"bench/run.sh: bench_{program} does not build; is libbenchmark-dev installed?")


def measure(kind, program, names, repetitions):
    """Of every benchmark that one of the names matches: its repetitions."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [here.parent / folders[kind] / "bench" / f"bench_{program}", f"--benchmark_out={out.name}",
                   f"--benchmark_filter=^({'|'.join(sorted(names))})(/real_time)?$", "--benchmark_min_time=0.05",
                   f"--benchmark_repetitions={repetitions}", "--benchmark_enable_random_interleaving=true"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"bench_{program} has failed: {done.stderr.strip().splitlines()[-1:]}")
        found = collections.defaultdict(list)
        for b in json.load(out)["benchmarks"]:
            if "error_occurred" in b:
                sys.exit(f"{b['name']}: {b['error_message']}")
            if b["run_type"] == "iteration":
                found[b["run_name"].removesuffix("/real_time")].append(b)
    return found


def median(repetitions, of):
    return statistics.median(b.get(of, 0) for b in repetitions)


def matching(found, name):
    all_of = {n: b for n, b in found.items() if re.fullmatch(name, n)}
    if not all_of:
        sys.exit(f"targets.toml: no benchmark's name matches {name}")
    return all_of


def exponent(points):
    """Slope of the line through the logarithms, by least squares."""
    x, y = zip(*((math.log(n), math.log(of)) for n, of in points))
    return statistics.linear_regression(x, y).slope


def figure(target, found):
    """The figure in one run, and of which benchmark it is."""
    clock = "real_time" if target["clock"] == "wall" else "cpu_time"
    of = matching(found, target["of"])
    if "growth" in target:
        what = clock if target["growth"] == "time" else target["growth"]
        largest = max(of, key=lambda name: int(re.fullmatch(target["of"], name)[1]))
        return exponent((int(re.fullmatch(target["of"], n)[1]), median(b, what)) for n, b in of.items()), largest
    if "against" in target:
        (other,) = matching(found, target["against"]).values()
        figures = {name: median(b, clock) / median(other, clock) for name, b in of.items()}
    else:
        figures = {name: median(b, "roof") for name, b in of.items()}
    worst = (min if "at_least" in target else max)(figures, key=figures.get)
    return figures[worst], worst


def shown(x):
    return f"{x:.1f}" if x >= 9.95 else f"{x:.2f}"


def met(target, x):
    x = float(shown(x))
    return x >= target["at_least"] if "at_least" in target else x <= target["at_most"]


def facts(target, repetitions):
    """What a line can say of a benchmark."""
    ms = median(repetitions, "real_time" if target["clock"] == "wall" else "cpu_time")
    roof, gbs, gflops = (median(repetitions, of) for of in ("roof", "GB/s", "flop/s"))
    return {"ms": ms, "GBs": gbs, "GB": gbs * ms / 1e3, "GFLOPs": gflops / 1e9, "GFLOP": gflops * ms / 1e12,
            "top": (gflops / 1e9 or gbs) / roof if roof > 0 else 0, "kB": median(repetitions, "scratch") / 1e3}


def line(target, runs):
    figures, worst = zip(*(figure(target, found) for found in runs))
    verdicts = [met(target, x) for x in figures]
    good = met(target, statistics.median(figures))
    known = facts(target, [b for found in runs for b in found[worst[-1]]])
    notes = [f"{known['ms']:.3g} ms"]
    if len(matching(runs[0], target["of"])) > 1 and "growth" not in target:
        notes.append(f"the worst: {'/'.join(worst[-1].split('/')[:2])}")
    if target.get("scratch"):
        notes.append(f"scratch {known['kB']:,.1f} kB".replace(",", " "))
    if not good and "why" in target:
        notes.append(target["why"].format(**known))
    bound = f"≥ {target['at_least']}" if "at_least" in target else f"≤ {target['at_most']}"
    verdict = ("met" if good else "**missed**") + ("" if len(set(verdicts)) == 1 else ", runs disagree")
    return [target["work"], f"{bound} {target['unit']}", ", ".join(map(shown, figures)), verdict, notes]


def print_table(rows):
    """The first note of a row is in the table, the others in a list below, so that no line is long."""
    print("| work | target | runs | verdict | CPU time |\n|---|---|---|---|---|")
    for work, target, runs, verdict, notes in rows:
        print(f"| {work} | {target} | {runs} | {verdict} | {notes[0]} |")
    if any(notes[1:] for *_, notes in rows):
        print("\nScratch, and what bounds what misses:\n")
    for work, target, _, _, notes in rows:
        if notes[1:]:
            print(textwrap.fill(f"* {work} ({target}): {'; '.join(notes[1:])}", 120, subsequent_indent="  "))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", metavar="WORD", help="targets whose work or program holds the word")
    arguments.add_argument("--runs", type=int, default=2)
    arguments.add_argument("--repetitions", type=int, default=9)
    given = arguments.parse_args()
    if min(given.runs, given.repetitions) < 1:
        arguments.error("--runs and --repetitions are at least 1")
    listed = tomllib.loads((here / "targets.toml").read_text())["target"]
    targets = [{"clock": "cpu", "build": "native"} | t for t in listed]
    targets = [t for t in targets if given.only in f"{t['work']} {t['program']}"]
    if not targets:
        arguments.error(f"no target has '{given.only}' in its words")
    build(targets)
    names = collections.defaultdict(set)
    for t in targets:
        names[t["build"], t["program"]] |= {t["of"], t.get("against", t["of"])}
    loads, runs = [os.getloadavg()[0]], collections.defaultdict(list)
    for run in range(given.runs):
        for (kind, program), of in names.items():
            print(f"run {run + 1}: {program}, {kind}", file=sys.stderr)
            runs[kind, program].append(measure(kind, program, of, given.repetitions))
        loads.append(os.getloadavg()[0])
    cpu = next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "unknown CPU")
    command = " ".join(["bench/run.sh targets", *sys.argv[1:]])
    load = ", ".join(f"{x:.1f}" for x in loads)
    print(textwrap.fill(f"{datetime.date.today()}, `{command}`, {os.cpu_count()} cores of {cpu}, load before the runs"
                        f" and after each {load}", 120) + "\n")
    print_table([line(t, runs[t["build"], t["program"]]) for t in targets])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tries every mutant of mutants.toml: puts the bug into a copy of the headers, builds the test that must notice, and
wants it red.

tests/mutants/run.py [TEXT]            those whose words, file or test contain TEXT
tests/mutants/run.py --every N COMMIT  every N-th, from one that the commit chooses, where the tests themselves have run
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

tests = pathlib.Path(__file__).resolve().parent.parent
root = tests.parent
flags = "-std=c++20 -O0 -isystem /usr/include/eigen3 -I" + str(tests)
flags += f' -DKVEVICT_INCLUDE_DIR="{root / "include/kvevict"}"'
os.environ.setdefault("KVEVICT_GOLDEN_DIR", str(tests / "golden/data"))
# an uninitialised bool is the one wrong read that the emulation cannot show by its value
emulation = ["-DKVEVICT_SIMT_EMULATION=<support/simt/shim.hpp>", "-fsanitize=bool", "-fno-sanitize-recover=bool"]


def build(sources, include, out, extra=()):
    """One program. Returns what the compiler said if it failed."""
    command = [
        "g++",
        *flags.split(),
        f"-I{include}",
        *extra,
        *map(str, sources),
        "-o",
        str(out),
        "-pthread",
        "-lboost_context",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr if done.returncode else None


def sources_of(test):
    source = tests / f"{test}_test.cpp"
    if test.startswith("simt/"):
        return [source, *(common / f"{name}.o" for name in ("main", "device", "scheduler"))], emulation
    once = ["presets"] if test.startswith("laws/") else []  # what the programs compile once
    if "support/verbs.hpp" in source.read_text():
        once += ["plan_verbs", "move_verbs"]
    return [
        source,
        *(tests / f"laws/{name}.cpp" for name in once),
        common / "main.o",
        common / "allocations.o",
    ], []


def verdict(test, include, scratch):
    """'green', 'red' or what stopped the build."""
    sources, extra = sources_of(test)
    if error := build(sources, include, scratch / "test", extra):
        return "does not compile:\n" + error[:2000]
    try:
        return (
            "red" if subprocess.run([scratch / "test", "-a"], capture_output=True, timeout=600).returncode else "green"
        )
    except subprocess.TimeoutExpired:
        return "red"  # it hangs, which a test's time limit notices


def code(text):
    """What finds the text wherever lines are broken."""
    return re.compile(r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", text))))


def places(mutant):
    header = (root / "include/kvevict" / mutant["file"]).read_text()
    return list(code(mutant["from"]).finditer(header))


def attempt(mutant):
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        shutil.copytree(root / "include", scratch / "include")
        header = scratch / "include/kvevict" / mutant["file"]
        text, (place,) = header.read_text(), places(mutant)
        header.write_text(text[: place.start()] + mutant["to"] + text[place.end() :])
        return verdict(mutant["test"], scratch / "include", scratch)


def chosen():
    """The mutants that the arguments ask for, and whether their tests are first tried without any."""
    with open(tests / "mutants/mutants.toml", "rb") as file:
        mutants = tomllib.load(file)["mutant"]
    lost = [f"{m['file']}: {m['wrong']}" for m in mutants if len(places(m)) != 1]
    if lost:  # whichever are tried
        sys.exit("\n".join(["tests/mutants/run.py: texts that are not there once; correct mutants.toml:", *lost]))
    arguments = sys.argv[1:]
    if arguments[:1] == ["--every"]:
        if not re.fullmatch("[1-9][0-9]* [0-9a-f]+", " ".join(arguments[1:])):
            sys.exit("tests/mutants/run.py: --every needs a number above 0 and a commit, in hexadecimal digits")
        n, commit = int(arguments[1]), int(arguments[2], 16)
        return mutants[commit % n :: n], False
    wanted = arguments[0] if arguments else ""
    mutants = [m for m in mutants if any(wanted in m[k] for k in ("wrong", "file", "test"))]
    if not mutants:
        sys.exit(f"tests/mutants/run.py: no mutant has '{wanted}' in its words, file or test")
    return mutants, True


def main():
    mutants, both = chosen()
    for name in ("main", "allocations", "simt/device", "simt/scheduler"):  # they use nothing that a mutant changes
        command = ["g++", *flags.split(), f"-I{root / 'include'}", "-c", tests / f"support/{name}.cpp"]
        subprocess.run([*command, "-o", common / f"{pathlib.Path(name).name}.o"], check=True)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        failed = 0
        unchanged = sorted({m["test"] for m in mutants}) if both else []
        plain = [pool.submit(with_scratch, lambda s, t=t: verdict(t, root / "include", s)) for t in unchanged]
        tried = [pool.submit(attempt, m) for m in mutants]
        for test, result in zip(unchanged, plain):
            if result.result() != "green":
                failed += 1
                print(f"{test}: {result.result()} without any mutant", flush=True)
        for mutant, result in zip(mutants, tried):
            caught = result.result() == "red"
            failed += not caught
            print(
                f"{'caught' if caught else 'NOT CAUGHT'}  {mutant['file']}: {mutant['wrong']} ({mutant['test']})"
                + ("" if caught else f": {result.result()}"),
                flush=True,
            )
    print(f"{len(mutants)} mutants, {failed} failed")
    sys.exit(failed != 0)


def with_scratch(call):
    with tempfile.TemporaryDirectory() as folder:
        return call(pathlib.Path(folder))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as shared:
        common = pathlib.Path(shared)
        main()

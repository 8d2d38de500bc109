#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What every policy and verb calls outside the library is the same in all units, and the linker takes one copy for all:
at -O0, where nothing is inlined, none of it may need more than an old machine has. units.sh runs a few policies so;
this reads the assembler of all of them.

tests/flags/shared.py COMPILER FLAG…     exit status 77: cannot be tested here
"""

import collections
import concurrent.futures
import pathlib
import platform
import re
import subprocess
import sys

tests = pathlib.Path(__file__).resolve().parent.parent
programs = ["laws/presets.cpp", "laws/plan_verbs.cpp", "laws/move_verbs.cpp"]
wide = re.compile(
    r"(v[a-z0-9]+|andn|bextr|blsi|blsr|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|lzcnt|popcnt|movbe"
    r"|k(mov|or|test|and|xnor|unpck)[a-z]*)"
)
ours = re.compile(r"_Z+NK?7kvevict")
harmless = {"_ZSt4__lgl"}  # std::__lg: lzcnt is bsr on an older machine, and std::sort merely allows more steps then


def functions(program):
    """Of a program's assembler: the functions that units share, whom each calls, and the first wide instruction."""
    places = [f"-I{tests}", f"-I{tests.parent / 'include'}"]
    places += ['-DKVEVICT_INCLUDE_DIR=""', '-DKVEVICT_GOLDEN_DEFAULT_DIR=""']
    command = [*sys.argv[1:], "-std=c++20", "-O0", "-march=skylake-avx512", *places, "-S", tests / program, "-o", "-"]
    shared, calls, needs, name = set(), collections.defaultdict(set), {}, None
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        words = line.split()
        if words[:1] == [".weak"]:
            shared.add(words[1])
        elif label := re.match(r"([A-Za-z_][\w.$]*):", line):
            name = label[1]
        elif name and words and not words[0].startswith("."):
            if wide.fullmatch(words[0]):
                needs.setdefault(name, words[0])
            calls[name].update(re.findall(r"_Z[\w.$]+", line))
    return shared, calls, needs


def check(program):
    """Lines: a function that units share, what it needs, and who calls it."""
    shared, calls, needs = functions(program)
    callers = {name: name for name in calls if ours.match(name)}
    if not callers:
        return [f"{program}: no function of the library"]
    waiting = list(callers)
    while waiting:
        caller = waiting.pop()
        for name in calls[caller]:
            if name in shared and "7kvevict" not in name and name not in callers:
                callers[name] = caller
                waiting.append(name)
    wrong = [name for name in callers if name in needs and "7kvevict" not in name and name not in harmless]
    return [f"{name} needs {needs[name]}, called by {callers[name]}" for name in wrong]


def main():
    if platform.machine() != "x86_64":
        print("not an x86-64 machine: skipped")
        return 77
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        wrong = sorted({line for lines in pool.map(check, programs) for line in lines})
    subprocess.run(["c++filt"], input="".join(f"failed: {line}\n" for line in wrong), text=True, check=True)
    if not wrong:
        print(f"what {len(programs)} programs call outside the library needs no wide instruction")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

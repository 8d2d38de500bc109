#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What can be proven about the device kernels without a GPU; bench/run.sh --cuda-static runs it.

Compiles bench/cuda/kernels.cu for each architecture, reads registers, spills and shared memory from ptxas and the
instructions from the disassembly, and joins them with the launches that bench/cuda/dry_run names for the reference
shape. Exit status 1 when a kernel spills.
"""

import argparse, json, re, subprocess, sys
from pathlib import Path

# An SM: registers, shared bytes that blocks may take together, threads; per architecture. Newer ones are taken as 9.0.
SM = {"sm_80": (65536, 164 << 10, 2048), "sm_90": (65536, 228 << 10, 2048)}
HBM, TENSOR = 3.35e12, 989e12  # H100 SXM: bytes/s, dense bf16 flop/s


def run(*command, **more):
    return subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more
    ).stdout


def short(name):
    name = re.sub(r"\(\w+\)|kvevict::v0_\w+::|cuda::|pooled::", "", name)
    name = re.sub(r"^void ?(entry)?<(.*)>\(.*$", r"\2", name)
    name = name.replace("std::byte*", "byte*").replace("> >", ">>").replace(" ", "")
    return name.replace("tensor_product<bf16,4>", "tensor").replace("(bool)1", "true").replace(",1,", ",true,")


def compiled(nvcc, tree, work, architecture):
    """kernel → registers, spilled bytes, static shared bytes."""
    cubin = work / f"{architecture}.cubin"
    text = run(
        nvcc,
        "-std=c++20",
        "--expt-relaxed-constexpr",
        "-Iinclude",
        "-Ibench",
        "-I",
        "/usr/include/eigen3",
        "-cubin",
        f"-arch={architecture}",
        "-Xptxas",
        "-v",
        "bench/cuda/kernels.cu",
        "-o",
        str(cubin),
        cwd=tree,
    )
    found = {}
    for part in text.split("Compiling entry function ")[1:]:
        mangled = re.match(r"'([^']+)'", part)[1]
        number = lambda pattern: int((re.search(pattern, part) or [0, 0])[1])
        found[mangled] = {
            "registers": number(r"Used (\d+) registers"),
            "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
            "shared": number(r"(\d+) bytes smem"),
        }
    return cubin, found


def instructions(nvdisasm, cubin):
    """mangled name → counts of the instructions that matter, over all and within basic blocks."""
    counts, c, block = {}, None, {}
    for line in run(nvdisasm, "-c", str(cubin)).splitlines():
        section = re.match(r"\s*\.section\s+\.text\.([^,\s]+)", line)
        if section:
            c = counts[section[1]] = {
                "loads": 0,
                "wide loads": 0,
                "stores": 0,
                "wide stores": 0,
                "tensor": 0,
                "local": 0,
                "at once": 0,
                "hot": (0, 0),
            }
        if c is None:
            continue
        if section or re.match(r"\s*\.L_", line):
            block = {"loads": 0, "tensor": 0, "all": 0}
        if not re.search(r"/\*[0-9a-f]{4,}\*/\s+\S", line):
            continue
        block["all"] += 1
        if re.search(r"\bLDG\.", line):
            c["loads"] += 1
            c["wide loads"] += ".128" in line
            block["loads"] += 1
        if re.search(r"\bSTG\.", line):
            c["stores"] += 1
            c["wide stores"] += ".128" in line
        if re.search(r"\bHMMA\.", line):
            c["tensor"] += 1
            block["tensor"] += 1
        if re.search(r"\b(LDL|STL)\b", line):
            c["local"] += 1
        c["at once"] = max(c["at once"], block["loads"])
        if block["tensor"] >= max(1, c["hot"][0]):
            c["hot"] = (block["tensor"], block["all"])
        if re.search(r"\b(BRA|EXIT|RET)\b", line):
            block = {"loads": 0, "tensor": 0, "all": 0}
    return counts


def occupancy(architecture, registers, shared, threads):
    total, memory, most = SM.get(architecture, SM["sm_90"])
    warps = threads // 32
    by_registers = total // ((registers + 7) // 8 * 8 * 32 * warps)
    by_shared = memory // (shared + 1024)
    return min(by_registers, by_shared, most // threads, 32) * threads / most


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("nvcc", "nvdisasm", "dry-run", "work"):
        options.add_argument(f"--{name}", required=True)
    options.add_argument("architectures", nargs="+")
    o = options.parse_args()
    tree, work = Path(__file__).resolve().parents[2], Path(o.work)
    verbs = json.loads(run(o.dry_run))
    launched = {}
    for v in verbs:
        for k in v["steps"]:
            if "kernel" in k:
                launched.setdefault(short(k["kernel"]), k)
    spills = 0
    print(
        "| kernel | architecture | registers | spilled bytes | shared | threads | occupancy | 128-bit loads "
        "| most loads in a block | 128-bit stores | tensor instructions |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for architecture in o.architectures:
        cubin, found = compiled(o.nvcc, tree, work, architecture)
        code = instructions(o.nvdisasm, cubin)
        for mangled, plain in zip(found, run("c++filt", *found).splitlines()):
            name, c, f = short(plain), code.get(mangled, {}), found[mangled]
            spills += f["spills"] + c.get("local", 0)
            k = launched.get(name)
            if k is None:
                continue
            shared = f["shared"] + k["bytes"]
            share = occupancy(architecture, f["registers"], shared, k["threads"])
            print(
                f"| `{name}` | {architecture} | {f['registers']} | {f['spills']} | {shared} | {k['threads']} "
                f"| {share:.0%} | {c['wide loads']} of {c['loads']} | {c['at once']} "
                f"| {c['wide stores']} of {c['stores']} "
                f"| {'{} of {} in the hot block'.format(*c['hot']) if c['tensor'] else 0} |"
            )
    print(
        "\n| verb | kernels | copies | fills | scratch MB | least MB | Gflop | µs at 3.35 TB/s | µs at 989 Tflop/s |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for v in verbs:
        kernels, copies, fills = (sum(kind in s for s in v["steps"]) for kind in ("kernel", "copy", "fill"))
        print(
            f"| {v['verb']} | {kernels} | {copies} | {fills} | {v['scratch'] / 1e6:.2f} | {v['bytes'] / 1e6:.2f} "
            f"| {v['flops'] / 1e9:.1f} | {v['bytes'] / HBM * 1e6:.2f} | {v['flops'] / TENSOR * 1e6:.2f} |"
        )
    print(f"\nspilled bytes and local accesses over all kernels and architectures: {spills}")
    return 1 if spills else 0


if __name__ == "__main__":
    sys.exit(main())

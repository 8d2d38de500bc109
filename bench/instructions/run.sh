#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Instructions of one call of each hot kernel (x86-64-v3, -O2), counted by valgrind; the same number at every run.
#   bench/instructions/run.sh             beside recorded.txt: bound, count, verdict; fails above a bound
#   bench/instructions/run.sh --update    and records the counts of today
#   bench/instructions/run.sh INCLUDE     beside those of the headers in INCLUDE, and the ratio
# Bounds are 3 % above what was recorded; bytes of scratch are exact. Other compilers and C libraries count otherwise:
# where this machine's are not those of the record, that is said, and nothing is compared.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
record=bench/instructions/recorded.txt
if [[ $(uname -m) != x86_64 ]] || ! grep -qw avx2 /proc/cpuinfo; then
  echo 'instructions: they are counted of x86-64-v3, which this machine has not'
  exit 0
fi
tools="$(g++ --version | head -n 1), glibc $(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)"
if (($# > 1)) || [[ ${1:---update} != --update && ! -f $1/kvevict/kvevict.hpp ]]; then
  echo "instructions: $* is neither --update nor a folder with kvevict's headers" >&2
  exit 2
fi
if [[ $# == 0 && "# $tools" != "$(head -n 1 "$record")" ]]; then
  echo "instructions: nothing is compared, $record is of $(sed -n '1s/^# //p' "$record"), this machine has $tools"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# counts INCLUDE: a line a kernel: name, instructions, bytes of scratch
counts() {
  local folder part
  folder=$(mktemp -d -p "$work")
  g++ -std=c++20 -O2 -march=x86-64-v3 -Wno-maybe-uninitialized "-I$1" -Ibench -isystem /usr/include/eigen3 \
    bench/instructions/kernels.cpp -lbenchmark -o "$folder/kernels"
  # Of one instruction that copies or fills many bytes valgrind counts every byte: without those
  GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=100000000:glibc.cpu.x86_rep_stosb_threshold=100000000 \
    valgrind -q --tool=callgrind --instr-atstart=no "--callgrind-out-file=$folder/out" "$folder/kernels" \
    >"$folder/scratch" 2>"$folder/log" || { cat "$folder/log" >&2; return 1; }
  for part in "$folder"/out.*; do
    sed -n 's/^desc: Trigger: Client Request: //p; s/^totals: //p' "$part" | paste -s -d ' '
  done | sort >"$folder/counts"
  sort "$folder/scratch" | join "$folder/counts" -
}

counts include >"$work/now"
if [[ ${1-} == --update ]]; then
  { echo "# $tools"; cat "$work/now"; } >"$record"
  echo "recorded $(wc -l <"$work/now") kernels in $record"
elif [[ $# != 0 ]]; then
  counts "$1" >"$work/before"
  join "$work/now" "$work/before" | awk '{ printf "%-20s %12d %12d  %.4f\n", $1, $4, $2, $2 / $4 }'
else
  grep -v '^#' "$record" | join -a 1 -a 2 -e 0 -o 0,1.2,1.3,2.2,2.3 - "$work/now" | awk '
    BEGIN { printf "%-20s %12s %12s %10s  %s\n", "kernel", "bound", "now", "scratch", "verdict" }
    { bound = int($2 * 1.03)
      verdict = $4 == 0 ? "is no longer counted" : $2 == 0 ? "is not recorded" : $4 > bound ? "above its bound" \
        : $3 != $5 ? "scratch was " $3 : $4 * 1.03 < $2 ? "less; record it" : "ok"
      if (verdict != "ok" && verdict !~ /^less/) ++wrong
      printf "%-20s %12d %12d %10d  %s\n", $1, bound, $4, $5, verdict }
    END { printf "instructions: %d kernels, %d not as recorded%s\n", NR, wrong, \
            wrong ? "; on purpose? bench/run.sh instructions --update" : ""
          exit wrong != 0 }'
fi

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# units.sh COMPILER FLAG…: units of different flags in one program. The plain one runs on a machine that has no more
# than SSE4.2, beside one for AVX-512 and one without exceptions, in both orders. Exit status 77: cannot be tested here.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
compiler=("$@" -std=c++20 "-I$here/.." "-I$here/../../include")
[[ $(uname -m) == x86_64 ]] || { echo 'not an x86-64 machine: skipped'; exit 77; }
command -v qemu-x86_64 >/dev/null || { echo 'qemu-x86_64 (package qemu-user) is absent: skipped'; exit 77; }
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
cd "$work"

compile() { "${compiler[@]}" "-DUNIT=$1" "${@:3}" -c "$here/unit.cpp" -o "$2.o"; }  # NAME OBJECT FLAG…
"${compiler[@]}" -c "$here/main.cpp" -o main.o

failed=0
run() {  # OBJECT OBJECT: linked in this order
  "${compiler[@]}" main.o "$1.o" "$2.o" -o program
  qemu-x86_64 -cpu Nehalem ./program || { echo "failed: $1 before $2"; failed=1; }
}
both() { run "$1" "$2"; run "$2" "$1"; }

# Of a function that both define the linker takes either: it must not need AVX, BMI, LZCNT or POPCNT in one of them.
# Not so std::__lg: lzcnt is bsr on an older machine, and std::sort merely allows more steps then.
law() {  # PLAIN WIDE
  nm "$1.o" | awk '$2 ~ /^[VW]$/ {print $3}' | sort >ours
  nm "$2.o" | awk '$2 ~ /^[VW]$/ {print $3}' | sort | comm -12 ours - >common
  [[ -s common ]] || { echo "failed: $1 and $2 have nothing in common, not even std"; failed=1; }
  objdump -d --no-show-raw-insn "$2.o" | awk '
    NR == FNR { common[$1]; next }
    /^[0-9a-f]+ <.*>:$/ { name = substr($2, 2, length($2) - 3); next }
    name in common && name != "_ZSt4__lgl" &&
      ($2 ~ /^(v[a-z0-9]+|andn|bextr|blsi|blsr|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|lzcnt|popcnt|movbe)$/ ||
       $2 ~ /^k(mov|or|test|and|xnor|unpck)[a-z]*$/) {
      if (!(name in told)) print name, $2
      told[name] }' common - >found
  if [[ -s found ]]; then
    echo "failed: functions that $1 and $2 share need the instructions of $2:"
    c++filt <found
    failed=1
  fi
}

for level in -O0 -O2; do
  compile plain "plain$level" "$level"
  compile wide "wide$level" "$level" -march=skylake-avx512
  law "plain$level" "wide$level"
  both "plain$level" "wide$level"
done
compile quiet quiet -O0 -fno-exceptions
both plain-O0 quiet
((failed == 0)) && echo 'all units kept to themselves'
exit "$failed"

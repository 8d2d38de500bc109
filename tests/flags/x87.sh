#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# x87.sh COMPILER FLAG…: floats that are wider than floats are refused, and a 32-bit program plans what a 64-bit one
# does. Exit status 77: cannot be tested here.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
[[ $(uname -m) == x86_64 ]] || { echo 'not an x86-64 machine: skipped'; exit 77; }
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
compiler=("$@" -std=c++20 "-I$here/../../include")

failed=0
refused() {  # FLAG…: where the compiler knows the flags at all
  echo 'int main() {}' >"$work/empty.cpp"
  if ! "${compiler[@]}" "$@" -fsyntax-only "$work/empty.cpp" 2>/dev/null; then
    echo "the compiler does not know $*"
    return 0
  fi
  echo '#include <kvevict/core/abi.hpp>' >"$work/refused.cpp"
  if "${compiler[@]}" "$@" -fsyntax-only "$work/refused.cpp" 2>"$work/said"; then
    echo "failed: $* compiles"
    failed=1
  elif ! grep -q 'kvevict: floats must be floats, not .*-mfpmath=sse' "$work/said"; then
    echo "failed: $* is refused without a word"
    failed=1
  fi
}
refused -m32 -mno-sse2
refused -m32 -msse2 -mfpmath=387
refused -m32 -msse2 -mfpmath=both
refused -mfpmath=387
refused -mfpmath=both

# Debian links the kernel's headers for -m32 in g++-multilib alone, a package that the AArch64 compiler excludes.
compiler+=(-idirafter /usr/include/x86_64-linux-gnu)
sets() { "${compiler[@]}" -O1 "$@" "$here/keep_sets.cpp" -o "$work/program" && "$work/program"; }  # FLAG…
printf '#include <atomic>\nint main() {}\n' >"$work/small.cpp"
if "${compiler[@]}" -m32 "$work/small.cpp" -o "$work/small" 2>/dev/null && "$work/small"; then
  sets >"$work/wide"
  sets -m32 -msse2 -mfpmath=sse >"$work/narrow"
  diff "$work/wide" "$work/narrow" || { echo 'failed: 32 bits keep other tokens than 64'; failed=1; }
else
  echo 'no 32-bit libraries (Debian: g++-12-multilib): keep sets of 32-bit programs are not compared'
fi
exit "$failed"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fast_math.sh COMPILER FLAG…: fast_math.cpp under -ffast-math -fno-finite-math-only, with and without AVX2.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
fast=("$@" -std=c++20 -O2 "-I$here/../../include" -ffast-math -fno-finite-math-only)

failed=0
check() {  # FLAG…
  echo "== $*"
  "${fast[@]}" "$@" "$here/fast_math.cpp" -o "$work/program"
  "$work/program" || failed=1
}
check -O2  # nothing beyond what the target has
if [[ $(uname -m) == x86_64 ]] && grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo; then
  check -mavx2 -mfma
else
  echo 'no AVX2 on this machine: not run'
fi
exit "$failed"

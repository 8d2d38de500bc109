#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Instructions of one call of each hot kernel (x86-64-v3, -O2), counted by valgrind; the same number at every run.
#   bench/instructions/run.sh [INCLUDE]   also those of the headers in INCLUDE, and the ratio
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { g++ -std=c++20 -O2 -march=x86-64-v3 "-I$1" -Ibench -isystem /usr/include/eigen3 bench/instructions/kernels.cpp -lbenchmark -o "$2"; }
total() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 | sed -n 's/.*Collected : //p'
}
each() { echo $((($(total "$1" "$2" 4) - $(total "$1" "$2" 1)) / 3)); }

build include "$work/now"
[ $# = 0 ] || build "$1" "$work/before"
for kernel in window_scores window_scores_lse step_gain column_sums column_sums_lse squared_norms pool require_finite \
  select_best count_pooled plan_snapkv plan_snapkv_checked plan_snapkv_proven plan_ada_snapkv plan_ahakv plan_keydiff \
  plan_lagkv plan_streaming plan_moves plan_holes; do
  now=$(each "$work/now" "$kernel")
  if [ $# = 0 ]; then printf '%-20s %12d\n' "$kernel" "$now"; continue; fi
  before=$(each "$work/before" "$kernel")
  printf '%-20s %12d %12d  %s\n' "$kernel" "$before" "$now" "$(echo "$now $before" | awk '{printf "%.4f", $1 / $2}')"
done

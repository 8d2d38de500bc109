#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds bench/ for this machine's own instruction set and runs it: medians of five repetitions.
#   bench/run.sh                  everything
#   bench/run.sh window_scores    the programs whose name contains the word
#   bench/run.sh window_scores --benchmark_filter=no_lse    further words go to Google Benchmark
set -eu
cd "$(dirname "$0")/.."
word=""
case "${1-}" in
  -h|--help) sed -n '3,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  ""|-*) ;;
  *) word=$1; shift ;;
esac
cmake -S . -B build/bench -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=-march=native -Wno-maybe-uninitialized" \
  -DKVEVICT_TESTS=OFF -DKVEVICT_EXAMPLES=OFF -DKVEVICT_BENCH=ON >/dev/null
found=0
for source in bench/time/*"$word"*.cpp; do
  [ -f "$source" ] || continue
  found=1
  program=bench_$(basename "$source" .cpp)
  cmake --build build/bench --target "$program" >/dev/null || { echo "bench/run.sh: $program does not build; is libbenchmark-dev installed?" >&2; exit 2; }
  "build/bench/bench/$program" --benchmark_repetitions=5 --benchmark_report_aggregates_only=true --benchmark_counters_tabular=true "$@" |
    grep -v -e '_mean' -e '_stddev' -e '_cv'
done
[ $found = 1 ] || { echo "bench/run.sh: no program of bench/time has '$word' in its name" >&2; exit 2; }

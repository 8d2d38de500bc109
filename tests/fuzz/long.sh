#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# long.sh MINUTES: fuzzes for so long with the address and undefined-behaviour sanitizers, on every core: by libFuzzer,
# which follows the branches that are taken, where clang has its runtime; else by new seeds. What fails is left in
# build/fuzz/found.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
minutes=$1 out=build/fuzz jobs=$(nproc) compiler=g++ sanitizers=address,undefined
mkdir -p "$out/found"
echo 'extern "C" int LLVMFuzzerTestOneInput(unsigned char const*, unsigned long) { return 0; }' >"$out/probe.cpp"
if command -v clang++ >/dev/null && clang++ -fsanitize=fuzzer "$out/probe.cpp" -o "$out/probe" 2>/dev/null; then
  compiler=clang++ sanitizers=fuzzer,$sanitizers
fi
sources=(tests/fuzz/{int32,int64,address,target}.cpp tests/fuzz/policies/*.cpp)
[[ $compiler == clang++ ]] || sources+=(tests/fuzz/main.cpp)
flags=(-std=c++20 -O1 -g1 -Iinclude -Itests -isystem /usr/include/eigen3
  "-fsanitize=$sanitizers" -fno-sanitize-recover=all)

echo "== building with $compiler, $sanitizers"
rm -f "$out"/*.o
object='source=$1 out=$2; shift 2; exec "$@" -c "$source" -o "$out/$(basename "$source").o"'
printf '%s\0' "${sources[@]}" | xargs -0 -P "$jobs" -I{} sh -c "$object" sh {} "$out" "$compiler" "${flags[@]}"
"$compiler" "${flags[@]}" "$out"/*.o -o "$out/fuzz" -pthread

commit=$(git rev-parse --short=12 HEAD 2>/dev/null || date +%Y%m%d) failed=0 pids=()
echo "== $minutes minutes on $jobs cores, commit $commit, $(date +%F)"
for ((job = 0; job < jobs; ++job)); do
  mkdir -p "$out/corpus.$job"
  if [[ $compiler == clang++ ]]; then
    arguments=("-max_total_time=$((60 * minutes))" "-seed=$((16#${commit:0:6} + job))" -max_len=400
      -rss_limit_mb=6000 -print_final_stats=1 "-artifact_prefix=$out/found/" "$out/corpus.$job" tests/fuzz/corpus)
  else
    arguments=(--seconds $((60 * minutes)) --seed $((16#$commit + job * 1000000000)))
  fi
  "$out/fuzz" "${arguments[@]}" >"$out/log.$job" 2>&1 &
  pids+=($!)
done
for ((job = 0; job < jobs; ++job)); do
  wait "${pids[job]}" || { failed=1; echo "== job $job failed"; tail -n 40 "$out/log.$job"; }
  grep -E '^(seed [0-9]+$|[0-9]+ runs|stat::(number_of_executed_units|new_units_added))' "$out/log.$job" || true
done
exit "$failed"

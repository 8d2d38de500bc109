#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
examples/attention_gate/train.sh --out DIR [--model FILE.gguf] [options of train.py]
    Trains gates for a model (SmolLM2-135M-Instruct unless --model names another Llama-family GGUF): installs what is
    missing, downloads the training text, trains with progress, and every 3 minutes writes DIR/checkpoint.pt,
    DIR/log.json and DIR/curves.png. Run it again with the same options to go on where the checkpoint was. The gates end
    up in DIR/gates.safetensors.
examples/attention_gate/train.sh evaluate --gates FILE [--model FILE.gguf] [--documents N]
    Perplexity of N held-out documents (default 24) after eviction by these gates and by the other policies, and the
    gates' cost.
examples/attention_gate/train.sh test
    The recipe's own tests.

Options of train.py, with their defaults: --keep 0.5 --steps 600 --imitate 250 --length 1024 --windows 1000
    --gate-heads 1 --gate-dim 32 --tau 0.5 --sinks 4 --rate 1e-3 --alpha 100 --distill 1 --seed 1 --every 3
    --precision auto --start FILE.safetensors
The Python environment with PyTorch (about 5 GB) and the text are cached in
${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-~/.cache}/kvevict}.
EOF
}
refuse() { echo "train.sh: $1" >&2; exit 2; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd -- "$here/../.." && pwd) cache=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}
source "$here/../install.sh"

command=train documents=24 gates='' model=() rest=()
case ${1-} in evaluate | test) command=$1; shift ;; esac
while (($#)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --model)
      [[ -n ${2-} && -f $2 ]] || refuse "--model ${2-}: no such file"
      model=(--model "$(realpath -- "$2")"); shift 2 ;;
    --gates)
      [[ $command == evaluate && -n ${2-} ]] || refuse "--gates needs a file, and belongs to evaluate"
      gates=$2; shift 2 ;;
    --documents)
      [[ $command == evaluate && ${2-} =~ ^[1-9][0-9]{0,3}$ ]] ||
        refuse "--documents needs a whole number above 0, and belongs to evaluate"
      documents=$2; shift 2 ;;
    --out | --keep | --steps | --imitate | --length | --windows | --gate-heads | --gate-dim | --tau | --sinks | \
      --rate | --alpha | --distill | --seed | --every | --precision | --start)
      [[ $command == train && -n ${2-} ]] || refuse "$1 needs a value, and belongs to training"
      rest+=("$1" "$2"); shift 2 ;;
    *) refuse "unknown argument $1; see --help" ;;
  esac
done
[[ $command != train || " ${rest[*]-} " == *" --out "* ]] || refuse "training needs --out DIR; see --help"
[[ $command != evaluate || -f $gates ]] || refuse "evaluate needs --gates FILE.safetensors"

case $command in
  evaluate) install_missing "${engine_packages[@]}" ;;
  *) install_missing python3 python3-venv ;;
esac
python_environment "$cache/venv-training" "$here/requirements.txt"
python=$cache/venv-training/bin/python
case $command in
  test) exec "$python" "$here/test_training.py" ;;
  train)
    model_dir=$("$python" "$here/../engine/prepare.py" ${model[@]+"${model[@]}"}) || exit 2
    exec "$python" "$here/train.py" --model "$model_dir" ${rest[@]+"${rest[@]}"} ;;
  evaluate)
    model_dir=$("$python" "$here/../engine/prepare.py" ${model[@]+"${model[@]}"}) || exit 2
    work=$(mktemp -d)
    trap 'rm -rf -- "$work"' EXIT
    "$python" "$here/data.py" "$model_dir" --held-out "$documents" >"$work/documents.json"
    build_programs "$tree" engine_evaluate
    "$tree/build/native/examples/engine_evaluate" --model "$model_dir" --gates "$gates" \
      --documents "$work/documents.json" ;;
esac

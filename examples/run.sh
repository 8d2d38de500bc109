#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
examples/run.sh [--quick] [--policies LIST] [--out DIR] [--model FILE.gguf] [--gates FILE.safetensors]... [--seed N]
                [--page-size P]
    Compares the eviction policies on a real language model with a real paged cache: installs what is missing, builds,
    prepares the model (SmolLM2-135M-Instruct unless --model names another Llama-family GGUF), runs the policies at
    10, 20 and 40 % of the cache on needle prompts, natural text and while decoding, prints a table, and writes
    results.csv and report.html to DIR (default: build/report). --policies all: every preset; else those that LIST
    names, with commas between them; unless said, DEFAULTS.
    Gates for SmolLM2: examples/attention_gate/weights; for another model train.sh beside them trains some, and --gates
    names their file. Once everything is installed, prepared and built, --quick takes 4 minutes on two cores: fewer
    prompts and tokens, and the first gates alone.
examples/run.sh generate "prompt" [--policy NAME] [--budget TOKENS] [--tokens N] [--model FILE.gguf]
                [--gates FILE.safetensors]
    Generates text after cutting the prompt's cache to the budget (attention_gate: a cap on what the gates keep).
examples/run.sh llama FILE [--policy NAME] [--budget TOKENS] [--tokens N] [--flash] [--q8] [--model FILE.gguf]
    Reads up to 2 048 tokens of the text FILE into a llama.cpp context of 512 cells, then generates N (64), and prints a
    row: for full (4 096 cells), none, shift (llama.cpp's own context shift), streaming, snapkv, ahakv and h2o, or
    NAME alone. --flash: flash attention; --q8: keys of q8_0. llama.cpp is built once, 6 to 9 minutes of one core.
examples/run.sh check
    Compares the engine's logits with an independent implementation's, and eviction on the real model with masking;
    damaged models and bad arguments are refused.
examples/run.sh speed
    Prefill and decode speed of the engine.

Downloads and the Python environment are cached in
${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-~/.cache}/kvevict}.
EOF
}
refuse() { echo "examples/run.sh: $1" >&2; exit 2; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cache=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict} build=$tree/build/native
command=compare quick=() out='' model=() seed=1 page_size=16 prompt='' generate=() gates=()
case ${1-} in
  generate | llama) [[ ${2-} != --help && ${2-} != -h ]] || set -- --help ;;
esac
case ${1-} in
  generate)
    command=generate; prompt=${2-}
    [[ -n $prompt && $prompt != --* ]] || refuse 'generate needs a prompt: examples/run.sh generate "text"'
    shift 2 ;;
  llama)
    command=llama; prompt=${2-}
    [[ -f $prompt ]] || refuse "llama needs a text: examples/run.sh llama FILE"
    shift 2 ;;
  check | speed) command=$1; shift ;;
esac
policies=(full none shift streaming snapkv ahakv h2o)
llama=(384 64 2048 64 0 0)  # keep, chunk, tokens, generate, flash, q8_0
defaults=full,random,streaming_llm,h2o,ahakv,snapkv,ada_snapkv,ada_pyramidkv,distinct_and_attended,attention_gate,oracle
chosen=$defaults
whole() { [[ ${2-} =~ ^[1-9][0-9]{0,8}$ ]] || refuse "$1 needs a whole number above 0"; }
while (($#)); do
  case $1 in
    --help | -h) usage | sed "s/DEFAULTS/$defaults/"; exit 0 ;;
    --policies)
      [[ $command == compare && -n ${2-} ]] || refuse "--policies needs names or 'all', and belongs to the comparison"
      if [[ $2 == all ]]; then chosen=''; else chosen=$2; fi; shift 2 ;;
    --model)
      [[ -n ${2-} ]] || refuse "--model needs a file"
      [[ -f $2 ]] || refuse "--model $2: no such file"
      model=(--model "$(realpath -- "$2")"); shift 2 ;;
    --quick) [[ $command == compare ]] || refuse "$1 belongs to the comparison"; quick=(--quick); shift ;;
    --out)
      [[ $command == compare && -n ${2-} ]] || refuse "--out needs a directory, and belongs to the comparison"
      out=$2; shift 2 ;;
    --seed | --page-size) [[ $command == compare ]] || refuse "$1 belongs to the comparison"; whole "$1" "${2-}"
      [[ $1 == --seed || $2 -le 1024 ]] || refuse "--page-size takes at most 1024"
      if [[ $1 == --seed ]]; then seed=$2; else page_size=$2; fi; shift 2 ;;
    --gates) [[ $command == compare || $command == generate ]] || refuse "$1 belongs to the comparison and to generate"
      [[ -f ${2-} ]] || refuse "--gates ${2-}: no such file"; gates+=(--gates "$2"); shift 2 ;;
    --policy | --budget | --tokens | --flash | --q8)
      if [[ $command == llama ]]; then
        case $1 in
          --policy)
            [[ " ${policies[*]} " == *" ${2-} "* ]] || refuse "--policy needs one of ${policies[*]}"
            policies=("$2")
            shift 2 ;;
          --budget)
            whole "$1" "${2-}"
            (($2 <= 448)) || refuse "--budget takes at most 448: of 512 cells, 64 tokens at a time need theirs"
            llama[0]=$2; shift 2 ;;
          --tokens) whole "$1" "${2-}"; llama[3]=$2; shift 2 ;;
          --flash) llama[4]=1; shift ;;
          --q8) llama[5]=1; shift ;;
        esac
        continue
      fi ;;&
    --policy)
      [[ $command == generate && -n ${2-} ]] || refuse "--policy needs a name, and belongs to generate"
      generate+=(--policy "$2"); shift 2 ;;
    --budget | --tokens)
      [[ $command == generate ]] || refuse "$1 belongs to generate"
      whole "$1" "${2-}"; generate+=("$1" "$2"); shift 2 ;;
    *) refuse "unknown argument $1; see --help" ;;
  esac
done

source "$here/install.sh"
if [[ $command == llama ]]; then
  install_missing g++ cmake ninja-build python3 python3-venv
  source "$here/llama_cpp/install.sh"
  own=${model[1]-}
  llama_cpp "$cache" || refuse "llama.cpp could not be downloaded or built, see above"
  mkdir -p -- "$build"
  g++ -std=c++20 -O2 -march=native "${llama_flags[@]}" "-I$tree/include" \
    "$here/llama_cpp/bounded.cpp" -o "$build/bounded" "${llama_libraries[@]}"
  printf '%s\n' \
    '| policy | nll a token past 512 | tokens a CPU second, reading / generating | evictions | kvevict, of CPU time |'
  echo '|---|---|---|---|---|'
  for policy in "${policies[@]}"; do "$build/bounded" "${own:-$model}" "$prompt" "$policy" "${llama[@]}"; done
  exit
fi
install_missing "${engine_packages[@]}"
python_environment "$cache/venv" "$here/engine/requirements.txt"
python=$cache/venv/bin/python
model_dir=$("$python" "$here/engine/prepare.py" ${model[@]+"${model[@]}"}) || exit 2
if ! ((${#gates[@]} + ${#model[@]})); then  # the gates of the usual model
  for file in "$here"/attention_gate/weights/*.safetensors; do [[ ! -f $file ]] || gates+=(--gates "$file"); done
  ((${#quick[@]} == 0)) || gates=("${gates[@]:0:2}")
fi
case $command in
  check) build_programs "$tree" engine_check engine_check_eviction engine_generate engine_speed ;;
  *) build_programs "$tree" "engine_$command" ;;
esac
bin=$build/examples

case $command in
  check)
    "$python" "$here/engine/refusals.py" "$bin"
    "$bin/engine_check" "$model_dir" "$here/engine/reference.json"
    "$bin/engine_check_eviction" "$model_dir" "$here/engine/reference.json" ;;
  speed) "$bin/engine_speed" "$model_dir" ;;
  generate)
    printf '%s' "$prompt" | "$python" -c 'import json, sys; print(json.dumps(sys.stdin.read()))' |
      "$python" "$here/engine/tokens.py" "$model_dir" chat |
      "$bin/engine_generate" --model "$model_dir" ${gates[@]+"${gates[@]:0:2}"} ${generate[@]+"${generate[@]}"} |
      "$python" "$here/engine/tokens.py" "$model_dir" stream ;;
  compare)
    out=${out:-$tree/build/report}
    mkdir -p -- "$out" || refuse "--out $out: cannot be made"
    "$python" "$here/compare/tasks.py" "$model_dir" ${quick[@]+"${quick[@]}"} --seed "$seed" >"$out/tasks.json"
    "$bin/engine_compare" --model "$model_dir" --tasks "$out/tasks.json" --out "$out" \
      --page-size "$page_size" ${chosen:+--policies "$chosen"} ${gates[@]+"${gates[@]}"}
    "$python" "$here/compare/report.py" "$out" ;;
esac

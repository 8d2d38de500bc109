#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# FlashInfer's own header, from its wheel, against engines/flashinfer.hpp: every element by its functions and by the
# view, before and after compaction; its device functions are compiled, and run where there is a GPU. nvcc is this
# machine's, or PyPI's. Says when something cannot be had, and fails on a wrong check.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../../.." && pwd)
cache=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}/flashinfer
version=0.7.4 cuda=13.0.88 runtime=13.0.96
absent() { echo "absent: FlashInfer: $1"; exit 0; }

command -v g++ >/dev/null || absent "there is no g++"
python3 -m pip --version >/dev/null 2>&1 || absent "there is no pip"
mkdir -p -- "$cache"

# wheels FOLDER PACKAGE==VERSION…: unpacked once into a folder of the cache, without what they depend on
wheels() (
  [[ ! -f $1/complete ]] || exit 0
  scratch=$(mktemp -d -p "$cache") || exit
  trap 'rm -rf -- "$scratch"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$scratch" "${@:2}" \
    2>"$scratch/errors" || { tail -n 1 "$scratch/errors" >&2; exit 1; }
  rm -rf -- "$1" && mkdir -p -- "$1" && python3 - "$1" "$scratch"/*.whl <<'PYTHON' && touch -- "$1/complete"
import os, sys, zipfile
for wheel in sys.argv[2:]:
    with zipfile.ZipFile(wheel) as packed:
        for item in packed.infolist():
            headers = ("flashinfer/data/include/", "flashinfer/data/cccl/")
            if item.filename.startswith("flashinfer/") and not item.filename.startswith(headers):
                continue  # its kernels' sources, and Python
            path = packed.extract(item, sys.argv[1])
            if not item.is_dir() and item.external_attr >> 16:
                os.chmod(path, item.external_attr >> 16 & 0o777)
PYTHON
)

wheels "$cache/$version" "flashinfer-python==$version" || absent "flashinfer-python $version cannot be had from PyPI"
nvcc='' libraries=()
for candidate in "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
  if [[ -z $nvcc && -n $candidate && -x $candidate ]] && "$candidate" --version | grep -q "release 1[3-9]"; then
    nvcc=$candidate
  fi
done
if [[ -z $nvcc ]]; then
  echo "== taking nvcc $cuda from PyPI" >&2
  wheels "$cache/nvcc-$cuda" "nvidia-cuda-nvcc==$cuda" "nvidia-cuda-crt==$cuda" "nvidia-nvvm==$cuda" \
    "nvidia-cuda-runtime==$runtime" ||
    absent "there is no nvcc of CUDA 13, nor one for this machine on PyPI"
  nvcc=$cache/nvcc-$cuda/nvidia/cu13/bin/nvcc libraries=(-L "$cache/nvcc-$cuda/nvidia/cu13/lib")
fi

# Built once for one content of the program, the library and the compiler.
data=$cache/$version/flashinfer/data
stamp=$({ "$nvcc" --version; find "$tree/include" "$here" -type f -print0 | sort -z | xargs -0 cat; } |
  sha256sum | cut -c1-16)
program=$cache/check-$stamp
if [[ ! -x $program ]]; then
  rm -f -- "$cache"/check-*
  arch=sm_90
  found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1) || true
  [[ ! $found =~ ^[0-9]+\.[0-9]$ ]] || arch=sm_${found/./}
  "$nvcc" -std=c++20 -O1 --expt-relaxed-constexpr -arch="$arch" "${libraries[@]}" -I "$tree/include" \
    -I "$data/include" -I "$data/cccl/libcudacxx/include" -I "$data/cccl/cub" -I "$data/cccl/thrust" \
    "$here/check.cu" -o "$program.new"
  mv -- "$program.new" "$program"
fi
echo "FlashInfer $version, page.cuh, compiled by $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/nvcc \1/p')"
exec "$program"

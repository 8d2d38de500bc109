#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# conan create in a cache of its own, with Conan from PyPI: the recipe is exported, packaged, and a project that uses
# it is built and run. Without the thread pool, whose Eigen would come from a server of recipes. 77: no Conan here.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
environment=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}/venv-conan
if [[ ! -x $environment/bin/conan ]]; then
  { python3 -m venv "$environment" && "$environment/bin/pip" -q install 'conan>=2,<3'; } || {
    echo 'not covered: Conan cannot be had from PyPI here'
    exit 77
  }
fi
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
export CONAN_HOME=$work/home
cp -R "$here" "$work/recipe" && sed -i "s|^ROOT = .*|ROOT = (\"$here/../../../..\",)|" "$work/recipe/conanfile.py"
sed -i "s|\.\./\.\./\.\./main.cpp|$here/../../main.cpp|" "$work/recipe/test_package/CMakeLists.txt"  # builds beside it
"$environment/bin/conan" profile detect >/dev/null 2>&1
"$environment/bin/conan" create "$work/recipe" -s compiler.cppstd=20 -o 'kvevict/*:threads=False' --no-remote

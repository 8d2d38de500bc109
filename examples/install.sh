# SPDX-License-Identifier: Apache-2.0
# What the examples' scripts share: packages, Python environments, the build, what threads do. Sourced; the script that
# does so defines refuse().

# What the engine is built of.
engine_packages=(g++ cmake ninja-build libeigen3-dev nlohmann-json3-dev libcli11-dev libopenblas-openmp-dev
  python3 python3-venv)
# Its threads that wait do not take the cores of others, and each multiplies a tile by itself.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} OPENBLAS_NUM_THREADS=1

# install_missing PACKAGE…: Debian packages that are not there yet
install_missing() {
  local missing=() package
  for package; do
    case $package in  # a tool may be there without its package
      g++ | cmake | python3) command -v "$package" >/dev/null || missing+=("$package") ;;
      ninja-build) command -v ninja >/dev/null || missing+=("$package") ;;
      python3-venv) python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=("$package") ;;
      *) dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package") ;;
    esac
  done
  ((${#missing[@]})) || return 0
  local as=()
  if ((EUID)); then as=(sudo -n); fi
  if ! command -v apt-get >/dev/null || { ((EUID)) && ! sudo -n true 2>/dev/null; }; then
    refuse "packages are missing; run: sudo apt-get update && sudo apt-get install -y ${missing[*]}"
  fi
  echo "== installing ${missing[*]}" >&2
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update >/dev/null
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 install -y \
    --no-install-recommends "${missing[@]}" >/dev/null
}

# python_environment DIRECTORY REQUIREMENTS: made once per content of the requirements; of two runs at once one waits
python_environment() {
  local stamp=$1/kvevict.stamp wanted lock
  wanted=$(sha256sum <"$2")
  [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return 0
  mkdir -p -- "$(dirname -- "$1")"
  exec {lock}>"$1.lock"
  flock "$lock"
  if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
    echo "== preparing the Python environment in $1" >&2
    python3 -m venv --clear "$1"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2"
    printf '%s' "$wanted" >"$stamp"
  fi
  exec {lock}>&-
}

# build_programs TREE TARGET…: with this machine's own instruction set, in TREE/build/native
build_programs() {
  local tree=$1 build=$1/build/native
  shift
  echo "== building for this machine" >&2
  cmake -S "$tree" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=-march=native \
    -DKVEVICT_TESTS=OFF -DKVEVICT_BENCH=OFF >/dev/null
  cmake --build "$build" --target "$@" >"$build/build.log" 2>&1 || {
    cat "$build/build.log" >&2
    refuse "the build failed"
  }
}

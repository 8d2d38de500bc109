#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a user's file costs the compiler: non-empty preprocessed lines, headers, and instructions of a syntax check.
#   bench/compile/run.sh [INCLUDE]   of the headers in INCLUDE (include/ unless named)
#   bench/compile/run.sh --check     lines and headers alone; fails beyond what a file's second line allows
set -eu
cd "$(dirname "$0")/../.."
include=include check=''
if [ "${1-}" = --check ]; then check=1; elif [ $# -gt 0 ]; then include=$1; fi
[ -f "$include/kvevict/kvevict.hpp" ] || {
  echo "bench/compile/run.sh: $include is neither --check nor a folder with kvevict's headers" >&2
  exit 2
}

compiler() { "${CXX:-g++}" -std=c++20 "-I$include" -isystem /usr/include/eigen3 "$@"; }
instructions() {
  valgrind --tool=callgrind --trace-children=yes --callgrind-out-file=/dev/null "${CXX:-g++}" -std=c++20 "-I$include" \
    -isystem /usr/include/eigen3 -fsyntax-only "$1" 2>&1 | sed -n 's/.*Collected : //p' | sort -n | tail -n 1
}

failed=0
for source in bench/compile/*.cpp; do
  lines=$(compiler -E -P "$source" | grep -c .)
  headers=$(compiler -M "$source" | tr -d '\\' | xargs -n 1 | tail -n +3 | wc -l)
  if [ -z "$check" ]; then
    echo "$source: $lines lines, $headers headers, $(instructions "$source") instructions"
    continue
  fi
  echo "$source: $lines lines, $headers headers"
  set -- $(sed -n 2p "$source")
  [ "$lines" -le "$4" ] && [ "$headers" -le "$6" ] || {
    echo "$source: more than $4 lines or $6 headers; which include is new?"
    failed=1
  }
done
exit $failed

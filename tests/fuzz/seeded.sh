#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# seeded.sh PROGRAM SECONDS: new seeds for so long. The first is the commit's, so that a red run repeats; of a tree that
# is no repository, or has changes, the day's.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if commit=$(git -C "$here" rev-parse HEAD 2>/dev/null) && git -C "$here" diff --quiet HEAD -- ../.. 2>/dev/null; then
  seed=$((16#${commit:0:12}))
else
  seed=$(date +%Y%m%d000000)
fi
exec "$1" --seconds "$2" --seed "$seed"

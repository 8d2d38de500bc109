#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes tests/golden/data/kvpress.json anew: what kvpress scores and keeps on tiny random models; ../README.md.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
refuse() { echo "tests/golden/make/run.sh: $1" >&2; exit 2; }
(($# == 0)) || refuse "takes no arguments; what it does is in tests/golden/README.md"
source "$here/../../../examples/install.sh"
cache=${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/kvevict}
install_missing python3 python3-venv
python_environment "$cache/kvpress" "$here/requirements.txt"
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
exec "$cache/kvpress/bin/python" "$here/fixtures.py" "$here/../data/kvpress.json"

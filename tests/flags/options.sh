#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts that users call say to --help and to wrong words: at once, before anything is installed or built.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
export KVEVICT_CACHE_DIR=$work/cache HOME=$work/home XDG_CACHE_HOME=$work/home/.cache
asked=0 failed=0

# says STATUS TEXT COMMAND…
says() {
  local status=$1 text=$2 code=0 output
  shift 2
  output=$(timeout 20 "$@" 2>&1 </dev/null) || code=$?
  asked=$((asked + 1))
  [[ $code != "$status" || $output != *"$text"* || $output == *'== '* || -n $(ls -A "$work") ]] || return 0
  printf 'FAIL %s: exit status %d, not %d with "%s":\n%s\n' "$*" "$code" "$status" "$text" "$output"
  failed=1
  rm -rf -- "${work:?}"/*
}

for words in --help 'generate --help' 'generate -h' 'llama --help' 'check --help' 'speed --help'; do
  says 0 'examples/run.sh [--quick]' examples/run.sh $words
done
says 2 'generate needs a prompt' examples/run.sh generate
says 2 'generate needs a prompt' examples/run.sh generate --policy snapkv
says 2 'llama needs a text' examples/run.sh llama nowhere
says 2 'unknown argument --bogus' examples/run.sh --bogus
says 2 '--budget belongs to generate' examples/run.sh --budget 3
says 2 '--quick belongs to the comparison' examples/run.sh check --quick
says 2 '--tokens needs a whole number above 0' examples/run.sh generate text --tokens 0
says 2 '--page-size takes at most 1024' examples/run.sh --page-size 1025
says 2 '--budget takes at most 448' examples/run.sh llama README.md --budget 449
says 2 '--policy needs one of full none' examples/run.sh llama README.md --policy lru

says 0 'train.sh --out DIR' examples/attention_gate/train.sh --help
says 2 'training needs --out DIR' examples/attention_gate/train.sh
says 2 'unknown argument --bogus' examples/attention_gate/train.sh --out "$work/out" --bogus 3
says 2 '--steps needs a value' examples/attention_gate/train.sh --out "$work/out" --steps
says 2 '--keep needs a value, and belongs to training' examples/attention_gate/train.sh test --keep 1
says 2 'evaluate needs --gates' examples/attention_gate/train.sh evaluate

says 0 'bench/run.sh cost' bench/run.sh --help
says 2 'unknown argument --bogus' bench/run.sh --bogus
says 2 'unknown argument --bogus' bench/run.sh pool --bogus
says 2 "has 'nothing' in its name" bench/run.sh nothing
says 2 '--cuda-static takes no further words' bench/run.sh --cuda-static gate
says 2 '--cuda-build needs an architecture' bench/run.sh --cuda-build
says 0 'bench/run.sh peers [--quick' bench/run.sh peers --help
for words in --help 'kvpress --help' 'screen -h'; do says 0 'bench/run.sh quality' bench/run.sh quality $words; done
says 2 "invalid choice: 'nothing'" bench/run.sh quality nothing
says 2 "invalid choice: 'nothing'" bench/run.sh quality kvpress nothing
says 2 'screen has no nothing, but argparse' bench/run.sh quality screen --documents nothing
says 2 'give a number above 0, not nan' bench/run.sh quality screen --hours nan
says 2 "invalid seeds value: 'x'" bench/run.sh quality screen --seeds x
says 0 'tests/run.sh [--only' tests/run.sh --help
says 2 'unknown argument --bogus' tests/run.sh --bogus
says 2 'give one of --cuda' tests/run.sh --fuzz 1 --mutants

echo "options: $asked commands asked"
exit "$failed"

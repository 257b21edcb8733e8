#!/usr/bin/env bash
# The base model knows no answers: SFT on the answers of the worked examples, without their reasoning, is at chance
# (25 %) on unseen rooms.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/answers_only.sh [DIR]
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${1:-results/learning}
rooms "$dir/validation-1000" 1000 100
data=$dir/validation-1000/perceived
worked=${WORKED:-32}
quietly "$dir/answers.log" sim conversations --answers-only --judge-examples 0 --questions "$worked" \
    --data "$data/train_data.json" --output "$dir/answers-$worked.jsonl"
quietly "$dir/sft.log" sft --resume auto --config "$root/configs/quickstart-sft.toml" --model "$(base)" \
    --data "$dir/answers-$worked.jsonl" --output "$dir/answers-only-$worked"
printf 'SFT on %s answers without reasoning: %.1f %% of unseen questions\n' "$worked" \
    "$(accuracy "$dir/answers-only-$worked/final" "$data/test_data.json")"

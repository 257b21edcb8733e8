#!/usr/bin/env bash
# The vision-language base model knows no answers: SFT on the answers of 40 questions about frames, or of all, without
# reasoning, is at chance (25 %) on unseen rooms.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/vision_answers_only.sh [DIR]
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${1:-results/learning}
views=$dir/views-1
mkdir -p "$views"
quietly "$dir/views.log" sim views --seed 1 --output "$views"
for worked in 40 1080; do
    epochs=$([ "$worked" = 40 ] && echo 24 || echo 3)
    quietly "$dir/answers.log" sim conversations --answers-only --judge-examples 0 --questions "$worked" --seed 1 \
        --data "$views/train_data.json" --output "$views/answers-$worked.jsonl"
    quietly "$dir/sft.log" sft --resume auto --config "$root/configs/quickstart-vision-sft.toml" \
        --model "${BASE:-$root/crates/cli/base/vision}" --data "$views/answers-$worked.jsonl" \
        --output "$dir/vision-answers-only-$worked" --set seed=1 --set "num_train_epochs=$epochs"
    quietly "$dir/eval.log" infer --direct --system-prompt-preset bearings --max-new-tokens 160 --model "$dir/vision-answers-only-$worked/final" \
        --data "$views/test_data.json" --output "$dir/vision-answers-only-$worked.json"
    printf 'SFT on %s answers without reasoning: %s %% of unseen questions\n' "$worked" \
        "$("$embodied_r" eval --json --predictions "$dir/vision-answers-only-$worked.json" 2>/dev/null |
            sed 's/.*"micro":\([0-9.]*\).*/\1/')"
done

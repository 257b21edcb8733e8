#!/usr/bin/env bash
# Learning rate and epochs of the quickstart's cold start: validation accuracy of SFT on 48 worked and 20 judge
# examples, on rooms that no quickstart uses. Prints a Markdown table.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/cold_start.sh [DIR]
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${1:-results/learning}
rates=${RATES:-1e-3 2e-3 4e-3}
epochs=${EPOCHS:-8 16 24 48}
rooms "$dir/validation" 1000 100
data=$dir/validation/perceived
quietly "$dir/conversations.log" sim conversations --data "$data/train_data.json" --output "$dir/conversations.jsonl"

printf '| learning rate | epochs | validation accuracy |\n|---|--:|--:|\n'
for rate in $rates; do
    for count in $epochs; do
        run=$dir/cold-start-$rate-$count
        quietly "$dir/sft.log" sft --resume auto --config "$root/configs/quickstart-sft.toml" --model "$(base)" \
            --data "$dir/conversations.jsonl" --output "$run" --set "learning_rate=$rate" \
            --set "num_train_epochs=$count"
        printf '| %s | %s | %.1f |\n' "$rate" "$count" "$(accuracy "$run/final" "$data/test_data.json")"
    done
done

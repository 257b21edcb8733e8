#!/usr/bin/env bash
# Learning rate and epochs of the quickstart's cold start: validation accuracy of SFT on $WORKED worked and 20 judge
# examples, on rooms that no quickstart uses: those of each of $SEEDS, as runs differ by more than the standard error.
# Prints a Markdown table.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/cold_start.sh [DIR]
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${1:-results/learning}
worked=${WORKED:-40}
rates=${RATES:-1e-3 2e-3 4e-3}
epochs=${EPOCHS:-8 16 24 48}
seeds=${SEEDS:-1000 1100 1200}
for seed in $seeds; do
    rooms "$dir/validation-$seed" "$seed" 100
    quietly "$dir/conversations.log" sim conversations --questions "$worked" --seed "$seed" \
        --data "$dir/validation-$seed/perceived/train_data.json" --output "$dir/conversations-$seed-$worked.jsonl"
done

printf '| learning rate | epochs | validation accuracy | mean |\n|---|--:|---|--:|\n'
for rate in $rates; do
    for count in $epochs; do
        accuracies=
        for seed in $seeds; do
            run=$dir/cold-start-$seed-$worked-$rate-$count
            quietly "$dir/sft.log" sft --resume auto --config "$root/configs/quickstart-sft.toml" --model "$(base)" \
                --data "$dir/conversations-$seed-$worked.jsonl" --output "$run" --set "learning_rate=$rate" \
                --set "num_train_epochs=$count"
            found=$(accuracy "$run/final" "$dir/validation-$seed/perceived/test_data.json")
            accuracies+=$(printf '%.1f ' "$found")
        done
        printf '| %s | %s | %s | %.1f |\n' "$rate" "$count" "$accuracies" \
            "$(awk '{ for (i = 1; i <= NF; i++) sum += $i; print sum / NF }' <<<"$accuracies")"
    done
done

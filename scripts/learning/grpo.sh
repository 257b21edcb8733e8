#!/usr/bin/env bash
# Settings of the quickstart's GRPO run, compared on rooms that no quickstart uses. Each argument after DIR is a list of
# settings as for `train --set`, separated by semicolons; without any, the list below is run. Prints a Markdown table.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/grpo.sh DIR ['learning_rate=3e-4;beta=0' …]
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${1:-results/learning}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- '' 'learning_rate=4e-4' 'dynamic_sample=false' 'num_generations=16' 'epsilon_high=0.28' \
    'beta=0' 'beta=0.001' 'beta=0.02' 'loss_type="dr_grpo";scale_rewards="none"' \
    'sync_ref_model=true;ref_model_sync_steps=40'
rooms "$dir/grpo-rooms" 2000 220
data=$dir/grpo-rooms/perceived
quietly "$dir/grpo-conversations.log" sim conversations --questions "${WORKED:-40}" --data "$data/train_data.json" \
    --output "$dir/grpo-conversations.jsonl"
quietly "$dir/sft.log" sft --resume auto --config "$root/configs/quickstart-sft.toml" --model "$(base)" \
    --data "$dir/grpo-conversations.jsonl" --output "$dir/grpo-start"
printf '| settings | accuracy | seconds |\n|---|--:|--:|\n'
printf '| cold start | %.1f | |\n' "$(accuracy "$dir/grpo-start/final" "$data/test_data.json")"
for settings in "$@"; do
    run=$dir/grpo-$(printf '%s' "${settings:-default}" | tr -c 'a-z0-9\n' '-')
    sets=()
    while IFS= read -r setting; do
        [ -z "$setting" ] || sets+=(--set "$setting")
    done < <(printf '%s\n' "$settings" | tr ';' '\n')
    began=$(date +%s)
    quietly "$dir/train.log" train --resume auto --config "$root/configs/quickstart-train.toml" \
        --model "$dir/grpo-start/final" --data "$data/train_data.json" --output "$run" "${sets[@]}"
    seconds=$(($(date +%s) - began))
    printf '| %s | %.1f | %s |\n' "${settings:-as configured}" "$(accuracy "$run/final" "$data/test_data.json")" "$seconds"
done

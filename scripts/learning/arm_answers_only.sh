#!/usr/bin/env bash
# The arm's base model knows no answers: accuracy by kind after SFT on the answers of 60 questions, or of all, without
# reasoning. QUICKSTART is the output of `embodied-r quickstart --robot`, whose questions it takes.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/arm_answers_only.sh QUICKSTART [DIR]
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

quickstart=${1:?the output directory of a quickstart of the arm}
dir=${2:-results/learning}
questions=$quickstart/questions
system_prompt='You are a helpful assistant.'
mkdir -p "$dir"
for worked in 60 all; do
    # As many as the quickstart's worked examples take the epochs of its configuration.
    count=$worked
    settings=()
    if [ "$worked" = all ]; then
        count=1000000
        settings=(--set num_train_epochs=3)
    fi
    # Paths of images are relative to the file.
    conversations=$questions/answers-$worked.jsonl
    quietly "$dir/answers.log" sim conversations --answers-only --judge-examples 0 --questions "$count" \
        --demos "$quickstart/demos" --data "$questions/train_selected.json" --system-prompt "$system_prompt" \
        --output "$conversations"
    run=$dir/arm-answers-only-$worked
    quietly "$dir/sft.log" sft --resume auto --config "$root/configs/quickstart-robot-sft.toml" \
        --model "${BASE:-$root/crates/cli/base/arm}" --data "$conversations" --output "$run" \
        "${settings[@]}"
    printf 'SFT on the answers of %s questions without reasoning:\n' "$worked"
    "$embodied_r" eval --direct --protocol robot-r1 --model "$run/final" --data "$questions/test_selected.json" \
        --system-prompt "$system_prompt" --max-new-tokens 160 --output "$run/eval" 2>"$dir/eval.log"
done

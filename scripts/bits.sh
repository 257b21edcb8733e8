#!/usr/bin/env bash
# Trains five tiny runs and prints a hash of what each writes. A change that is to leave results alone prints the same lines
# before and after, on the same machine:
#
#     EMBODIED_R=target/debug/embodied-r scripts/bits.sh [--cuda-host] > before.txt
#
# The build needs the feature `mpi`. The runs are GRPO on text, with LoRA, on images with a frozen and with a trained vision tower, and on two ranks. Hashes are
# of the weights in `final/`, of `events.jsonl` without times, rates and memory, and of what `inspect` prints of the model.
# --cuda-host: the first and the fourth again with the kernels of GPUs emulated on the CPU, by a build with that feature.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case ${1:-} in
'' | --cuda-host) emulation=${1:-} ;;
*) fail "unknown argument \`$1\`" "run scripts/bits.sh [--cuda-host]" ;;
esac
embodied_r=${EMBODIED_R:-embodied-r}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# quietly COMMAND…: runs a command of the program, whose output is shown if it fails.
quietly() {
    "$embodied_r" "$@" >"$dir/log" 2>&1 || fail "\`embodied-r $*\` failed" "$(tail -n 5 "$dir/log")"
}

# trained NAME MODEL DATA OPTION…: two steps of GRPO, and their hashes.
trained() {
    local name=$1 model=$2 data=$3
    shift 3
    quietly train --model "$model" --data "$data" --output "$dir/$name" --set seed=7 \
        --set num_generations=4 --set generation_batch_size=16 --set max_completion_length=24 --set max_steps=2 \
        --set learning_rate=1e-3 --set beta=0.05 --set eval_steps=2 --eval-data "$data" \
        --set 'system_prompt_preset="bearings"' --reward-funcs accuracy format --report_to none "$@"
    local weights events
    weights=$(cat "$dir/$name"/final/*.safetensors | sha256sum | cut -c1-16)
    events=$(python3 - "$dir/$name/events.jsonl" <<'END' | sha256sum | cut -c1-16
import json, sys

# What depends on the machine's speed.
MEASURED = ("time", "memory/", "tokens_per_second", "matmul_share", "mfu", "busy_share")
for line in open(sys.argv[1], encoding="utf-8"):
    event = json.loads(line)
    kept = {key: value for key, value in event.items() if not key.startswith(MEASURED) and "time" not in key}
    print(json.dumps(kept, sort_keys=True))
END
)
    printf '%-22s weights %s  events %s\n' "$name" "$weights" "$events"
}

# inspected NAME MODEL: the hash of the log-probabilities of some ids.
inspected() {
    local hash
    echo '{"sequences": [[1, 5, 9, 33, 70, 12, 4, 90], [2, 8, 64]]}' >"$dir/sequences.json"
    hash=$("$embodied_r" inspect logprobs --json --model "$2" --data "$dir/sequences.json" | sha256sum | cut -c1-16)
    printf '%-22s log-probabilities %s\n' "$1" "$hash"
}

base=$root/crates/cli/base
quietly sim rooms --output "$dir/rooms" --rooms 6 --seed 3 --per-category 2 \
    --categories 'obj_appearance_order,Landmark Position,Action Generation,Progress Evaluation'
quietly preprocess --data "$dir/rooms" --output "$dir/dataset" --seed 3
quietly perceive --backend scene --scenes "$dir/rooms/scenes" --data "$dir/dataset/complete/train_data.json" \
    --output "$dir/perceived"
quietly sim views --output "$dir/views" --train 16 --val 4 --test 4 --seed 3
text=$dir/perceived/train_data.json views=$dir/views/train_data.json

runs() {
    trained "text$1" "$base" "$text"
    trained "trained tower$1" "$base/vision" "$views" --set freeze_vision_tower=false --set freeze_aligner=false
}

runs ''
trained LoRA "$base" "$text" --set use_peft=true --set lora_r=4
trained 'frozen tower' "$base/vision" "$views"
trained 'two ranks' "$base" "$text" --ranks 2
inspected text "$dir/text/final"
inspected 'trained tower' "$dir/trained tower/final"
if [ -n "$emulation" ]; then
    export EMBODIED_R_CUDA_HOST=1
    runs ', emulated'
fi

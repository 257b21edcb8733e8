# Sourced by the scripts beside it: question sets of simulated rooms, training runs and their accuracy.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
embodied_r=${EMBODIED_R:-embodied-r}
categories='obj_appearance_order,Landmark Position,Action Generation,Progress Evaluation'

if ! command -v "$embodied_r" >/dev/null; then
    printf 'error: `%s` was not found\nhint: set EMBODIED_R to the program, such as target/release/embodied-r\n' \
        "$embodied_r" >&2
    exit 1
fi

# quietly LOG COMMAND...: runs a command of the program; its output goes to LOG, which is shown if it fails.
quietly() {
    local log=$1
    shift
    if ! "$embodied_r" "$@" >"$log" 2>&1; then
        printf 'error: `%s` failed\n' "$*" >&2
        tail -n 20 "$log" >&2
        exit 1
    fi
}

# rooms DIR SEED COUNT: captioned questions about rooms of their own, DIR/perceived/{train,val,test}_data.json.
rooms() {
    local dir=$1 seed=$2 count=$3
    [ ! -e "$dir/perceived/test_data.json" ] || return 0
    mkdir -p "$dir"
    quietly "$dir/rooms.log" sim rooms --output "$dir/rooms" --rooms "$count" --seed "$seed" --per-category 4 \
        --categories "$categories"
    quietly "$dir/preprocess.log" preprocess --data "$dir/rooms" --output "$dir/dataset" --seed "$seed"
    quietly "$dir/perceive.log" perceive --backend scene --scenes "$dir/rooms/scenes" \
        --data "$dir"/dataset/complete/{train,val,test}_data.json --output "$dir/perceived"
}

# base: the model to start from: $BASE, or the one in the program's sources.
base() {
    printf '%s\n' "${BASE:-$root/crates/cli/base}"
}

# accuracy MODEL QUESTIONS: the per cent of correct greedy replies.
accuracy() {
    "$embodied_r" eval --json --model "$1" --data "$2" --max-new-tokens 160 2>/dev/null |
        sed 's/.*"micro":\([0-9.]*\).*/\1/'
}

#!/usr/bin/env bash
# Checks and measures a machine with a GPU: operations against the CPU, memory errors, log-probabilities, decoding, GRPO
# steps, and TRL's beside them. Every step writes JSON, or says in summary.json why it failed or was skipped.
#
#     scripts/gpu_check.sh [--program FILE] [--preset SHAPE] [--out FOLDER] [--small]
#
#     --program  the binary built with `--features cuda`       [default: target/release/embodied-r]
#     --preset   shape of the model, see `bench make-model`    [default: qwen2.5-3b]
#     --out      new folder for the results                    [default: results/gpu-check-DATE]
#     --small    short prompts and few operations, to rehearse
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

program=$root/target/release/embodied-r preset=qwen2.5-3b small=no
out=results/gpu-check-$(date +%Y%m%d-%H%M%S)
while [ $# -gt 0 ]; do
    case $1 in
        --program) program=$2 && shift 2 ;;
        --preset) preset=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --small) small=yes && shift ;;
        *) fail "unknown option \`$1\`" "see the head of scripts/gpu_check.sh" ;;
    esac
done
[ -x "$program" ] || fail "there is no program \`$program\`" \
    "build it with \`cargo build --release -p embodied-r-cli --features cuda\`, or name it with --program"
[ ! -e "$out" ] || fail "\`$out\` exists" "name a new folder with --out"
mkdir -p "$out"

# Prompt lengths, prompts per batch, new tokens, tokens whose log-probabilities are compared.
prompts=(512 3072) groups=(1 4 16) new=128 grpo=(--prompt 1024 --new 128 --group-size 8 --groups 1) sequence=128
operations=()
if [ "$small" = yes ]; then
    prompts=(16) groups=(1 2) new=4 grpo=(--prompt 16 --new 4 --group-size 2 --groups 1) sequence=8
    operations=(--only rms_norm)
fi

steps=() failed=0

# note STEP STATUS SECONDS: adds a line to the summary.
note() {
    say "$1: $2"
    steps+=("{\"step\": \"$1\", \"status\": \"$2\", \"seconds\": $3}")
    printf '{"program": "%s", "preset": "%s", "steps": [\n%s\n]}\n' "$("$program" --version)" "$preset" \
        "$(IFS=$'\n' && printf '%s' "${steps[*]}" | sed '$!s/$/,/')" >"$out/summary.json"
}

# step NAME COMMAND...: stdout goes to NAME.json, or with `format=txt` to NAME.txt, and stderr to NAME.log.
step() {
    local name=$1 began=$SECONDS code=0
    shift
    say "$name: $*"
    "$@" >"$out/$name.${format:-json}" 2>"$out/$name.log" || code=$?
    if [ "$code" -eq 0 ]; then
        note "$name" ok $((SECONDS - began))
    else
        note "$name" "exit code $code" $((SECONDS - began))
        failed=1
    fi
}

# Largest difference of two files of numbers, as JSON; fails above the tolerance, for another count and for NaN.
compare() {
    paste -d ' ' <(tr ' ' '\n' <"$1" | grep .) <(tr ' ' '\n' <"$2" | grep .) | awk -v tolerance="$3" '
        NF != 2 || $1 !~ /^-?[0-9.e-]+$/ || $2 !~ /^-?[0-9.e-]+$/ { wrong = 1; next }
        { d = $1 - $2; if (d < 0) d = -d; if (d > largest) largest = d }
        END {
            printf "{\"numbers\": %d, \"malformed\": %d, \"largest_difference\": %g, \"tolerance\": %g}\n",
                NR, wrong, largest, tolerance
            exit NR == 0 || wrong || largest > tolerance
        }'
}

step doctor "$program" doctor --json
step check "$program" bench ops --check --device cuda --json "${operations[@]}"
step ops "$program" bench ops --device cuda --json "${operations[@]}"
for kernels in attention paged_attention sample; do
    if has compute-sanitizer; then
        step "sanitizer-$kernels" compute-sanitizer --error-exitcode 86 "$program" bench ops --check --device cuda --json \
            --only "$kernels"
    else
        note "sanitizer-$kernels" "skipped: there is no compute-sanitizer" 0
    fi
done

model=$out/model
format=txt step make-model "$program" bench make-model --preset "$preset" "$model"
awk -v n="$sequence" 'BEGIN {
    for (i = 0; i < n; i++) ids = ids (i ? ", " : "") (i * 7919 + 11) % 200
    print "{\"sequences\": [[" ids "]]}"
}' >"$out/tokens.json"
logps=("$program" inspect logprobs --model "$model" --data "$out/tokens.json")
format=txt step logprobs-cpu "${logps[@]}" --device cpu --precision f32
for of in f32:1e-3 bf16:3e-2; do
    format=txt step "logprobs-${of%:*}" "${logps[@]}" --device cuda --precision "${of%:*}"
    step "logprobs-${of%:*}-difference" compare "$out/logprobs-cpu.txt" "$out/logprobs-${of%:*}.txt" "${of#*:}"
done

for prompt in "${prompts[@]}"; do
    for count in "${groups[@]}"; do
        step "generate-prompt-$prompt-groups-$count" "$program" bench generate --model "$model" --device cuda --json \
            --prompt "$prompt" --new "$new" --groups "$count"
    done
done
for recompute in none all; do
    step "grpo-recompute-$recompute" "$program" bench grpo --model "$model" --device cuda --json "${grpo[@]}" \
        --recompute "$recompute"
done
if has python3 && python3 -c 'import torch, trl; assert torch.cuda.is_available()' 2>/dev/null; then
    step trl python3 "$root/scripts/parity/trl_step.py" "$model" --device cuda --dtype bfloat16 "${grpo[@]}"
else
    note trl "skipped: Python has no TRL with a GPU" 0
fi
rm -rf "$model"
say "results: $out"
exit "$failed"

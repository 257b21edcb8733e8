#!/usr/bin/env bash
# Checks and measures a machine with GPUs, the most valuable facts first, within 8 minutes. Each step has a time limit, and
# writes a JSON line per fact to facts.jsonl as soon as it is known: {"step", "fact", "value", "unit", "ok", "seconds"},
# seconds from the start of the step. A step that fails or hangs leaves its lines, and the next one runs; it is repeated
# with CUDA_LAUNCH_BLOCKING=1 (as STEP-blocking) if time is left.
#
#     scripts/gpu_check.sh [--program FILE] [--out FOLDER] [--limit SECONDS] [--steps STEP,...] [--preset SHAPE] [--small]
#     scripts/gpu_check.sh --list
#
#     --program  the binary built with `--features cuda`       [default: target/release/embodied-r]
#     --out      new folder for facts.jsonl and log.txt        [default: results/gpu-check-DATE]
#     --limit    seconds for all steps                         [default: 480]
#     --steps    only these steps, for a second, shorter run
#     --preset   shape of the large model, see `bench make-model`    [default: qwen2.5-3b]
#     --small    short prompts and few operations, to rehearse
#     --list     print the steps with their time limits
#
# Exit code: 0 if all steps finished and all facts are ok, else 1.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Names and time limits in seconds, in the order in which they run; docs/cuda.md describes them. Steps that share a model
# run in one process. The last group gets what time is left, after failed steps were repeated.
groups=(
    "setup:15" "latency:20" "check:90" "compare:30" "decode:90 grpo:90" "cold:45" "vision:30"
    "scaling:90 all-reduce:20" "resume:60"
    "ncu:40" "memcheck:60" "racecheck:60"
)
last=(ncu memcheck racecheck)

program=$root/target/release/embodied-r preset=qwen2.5-3b small=no limit=480 only='' run=''
out=results/gpu-check-$(date +%Y%m%d-%H%M%S)
while [ $# -gt 0 ]; do
    case $1 in
        --program | --out | --limit | --steps | --preset | --run)
            [ $# -gt 1 ] || fail "\`$1\` needs a value" "see the head of scripts/gpu_check.sh" ;;&
        --program) program=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --limit) limit=$2 && shift 2 ;;
        --steps) only=$2 && shift 2 ;;
        --preset) preset=$2 && shift 2 ;;
        --run) run=$2 && shift 2 ;;
        --small) small=yes && shift ;;
        --list) printf '%s\n' "${groups[@]}" | tr ' ' '\n' | tr ':' ' ' && exit ;;
        *) fail "unknown option \`$1\`" "see the head of scripts/gpu_check.sh" ;;
    esac
done

# contains NAME LIST...
contains() {
    local name=$1 other
    shift
    for other in "$@"; do [ "$other" != "$name" ] || return 0; done
    return 1
}

# A JSON string.
quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    printf '"%s"' "$(printf '%s' "$text" | tr '\n\t' '  ' | tr -d '\000-\037')"
}

# fact NAME VALUE UNIT OK: a line of this process's step; VALUE is a JSON value.
fact() {
    printf '{"step":"","fact":%s,"value":%s,"unit":%s,"ok":%s,"seconds":%d}\n' \
        "$(quoted "$1")" "$2" "$(quoted "$3")" "$4" "$SECONDS"
}

skipped() {
    fact skipped "$(quoted "$1")" "" true
    finished
}

finished() {
    fact finished "$SECONDS" s true
}

# The number of GPUs that the program may use.
gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .
        return
    fi
    (nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true) | grep -c '^[0-9]' || true
}

## Steps of this script; the others are `bench gpu`'s.

# The libraries that the program is linked with, and what `doctor` finds.
step_setup() {
    local line name at
    fact program "$(quoted "$("$program" --version)")" "" true
    while read -r name _ at _; do
        case $name in
            lib*) fact "$name" "$(quoted "$at")" "" "$([ "$at" = not ] && echo false || echo true)" ;;
        esac
    done < <(ldd "$program")
    line=$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader 2>&1) || true
    fact nvidia-smi "$(quoted "$line")" "" true
    # Lines of findings are indented. FFmpeg and the environment matter to none of the steps.
    { "$program" doctor || true; } | tr -s ' ' | grep '^ ' | grep -vE ' (ff|decoder|encoder|HF_|OPENAI_)' | while read -r state line; do
        fact "doctor, $state" "$(quoted "$line")" "" "$([ "$state" = MISSING ] && echo false || echo true)"
    done
    finished
}

# A training run on all GPUs, of which a rank is killed; the run is resumed.
step_resume() {
    local work count code=0 victim
    count=$(gpus)
    [ "$count" -gt 1 ] || { skipped "there is one GPU" && return; }
    work=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    cd "$work"
    "$program" bench make-model --preset tiny-qwen2 model >&2
    awk 'BEGIN {
        for (i = 0; i < 64; i++)
            printf "%s{\"Question_id\": %d, \"question_category\": \"object_rel_distance\", \"question\": \"where is lamp %d?\", \"answer\": \"A\"}",
                i ? ", " : "[", i, i
        print "]"
    }' >train.json
    cat >run.toml <<'TOML'
num_generations = 4
generation_batch_size = 16
max_completion_length = 16
max_steps = 24
save_steps = 2
dynamic_sample = false
reward_weights = { format = 1.0 }
TOML
    local train=("$program" train --config run.toml --model model --data train.json --output run --no-pin --gpus "$count")
    "${train[@]}" >&2 &
    local launcher=$!
    until [ -e run/checkpoint-2 ] || ! kill -0 "$launcher" 2>/dev/null; do sleep 0.2; done
    # The launcher's children are the ranks.
    victim=$(pgrep -P "$launcher" | tail -n 1)
    [ -z "$victim" ] || kill -9 "$victim"
    wait "$launcher" || code=$?
    fact "exit code after a rank was killed" "$code" "" "$([ -n "$victim" ] && [ "$code" -eq 1 ] && echo true || echo false)"
    code=0
    "${train[@]}" --resume >&2 || code=$?
    fact "exit code of the resumed run" "$code" "" "$([ "$code" -eq 0 ] && [ -e run/final ] && echo true || echo false)"
    finished
}

# NVIDIA's metrics of five kernels; ncu.csv has the lines that ncu prints.
step_ncu() {
    local kernel only csv=$out/ncu.csv
    has ncu || { skipped "there is no ncu" && return; }
    for kernel in rms_norm_kernel:rms_norm qkv_norm_kernel:qkv paged_attention_mma_kernel:paged_attention lm_head_score_kernel:lm_head block_tile_kernel:weight; do
        only=${kernel#*:} kernel=${kernel%:*}
        ncu --csv --page raw --launch-skip 2 --launch-count 1 --kernel-name "regex:$kernel" \
            --metrics gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active \
            "$program" bench ops --check --device cuda --only "$only" >"$csv.part" 2>&1 || true
        cat "$csv.part" >>"$csv"
        if grep -q "^\"0\".*$kernel" "$csv.part"; then
            fact "$kernel" "$(quoted "$(grep "^\"0\".*$kernel" "$csv.part" | head -n 1)")" "ncu.csv" true
        else
            fact "$kernel" "$(quoted "$(tail -n 1 "$csv.part")")" "skipped" true
        fi
        rm -f "$csv.part"
    done
    finished
}

# sanitized TOOL: errors that compute-sanitizer finds in attention, paging and sampling.
sanitized() {
    local only log errors
    has compute-sanitizer || { skipped "there is no compute-sanitizer" && return; }
    log=$(mktemp)
    for only in sample paged_attention attention; do
        compute-sanitizer --tool "$1" "$program" bench ops --check --device cuda --only "$only" >"$log" 2>&1 || true
        tail -n 40 "$log" >&2
        # memcheck says "ERROR SUMMARY: N errors", racecheck "RACECHECK SUMMARY: N hazards displayed".
        errors=$(sed -n 's/.*SUMMARY: \([0-9][0-9]*\) .*/\1/p' "$log" | tail -n 1)
        if [ -n "$errors" ]; then
            fact "$only" "$errors" errors "$([ "$errors" -eq 0 ] && echo true || echo false)"
        else
            fact "$only" "$(quoted "$(tail -n 1 "$log")")" skipped true
        fi
    done
    rm -f "$log"
    finished
}

step_memcheck() { sanitized memcheck; }
step_racecheck() { sanitized racecheck; }

if [ -n "$run" ]; then
    "step_$run"
    exit
fi

## The runner.

[ -x "$program" ] || fail "there is no program \`$program\`" \
    "build it with \`cargo build --release -p embodied-r-cli --features cuda\`, or name it with --program"
[[ $limit =~ ^[0-9]+$ ]] || fail "\`--limit\` is \`$limit\`" "give seconds, such as 480"
[ ! -e "$out" ] || fail "\`$out\` exists" "name a new folder with --out"
known=$(printf '%s\n' "${groups[@]}" | tr ' ' '\n' | cut -d : -f 1)
for name in ${only//,/ }; do
    # shellcheck disable=SC2086
    contains "$name" $known || fail "there is no step \`$name\`" "see scripts/gpu_check.sh --list"
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
program=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")
facts=$out/facts.jsonl log=$out/log.txt
: >"$facts"

failed=() count=$(gpus)

# line STEP TEXT: writes a fact of a process as one of STEP.
line() {
    printf '{"step":"%s",%s\n' "$1" "${2#*,}" >>"$facts"
}

# skip STEP REASON
skip() {
    line "$1" "{,\"fact\":\"skipped\",\"value\":\"$2\",\"unit\":\"\",\"ok\":true,\"seconds\":0}"
}

# The command that runs the steps given, in `command`.
command_of() {
    local bench=("$program" bench gpu --preset "$preset") steps
    [ "$small" = no ] || bench+=(--small)
    steps=$(IFS=, && printf '%s' "$*")
    case $1 in
        setup | resume | ncu | memcheck | racecheck)
            command=(bash "$root/scripts/gpu_check.sh" --run "$1" --program "$program" --out "$out") ;;
        scaling | all-reduce)
            command=("${bench[@]}" --gpus "$count" --step "${steps/scaling/grpo}") ;;
        *) command=("${bench[@]}" --step "$steps") ;;
    esac
}

# attempt SUFFIX STEP:LIMIT...: runs steps in one process, and again from the step after one that failed or hung. Those are
# added to `failed`.
attempt() {
    local suffix=$1 pending step most left began pid text why code from
    shift
    pending=("$@")
    while [ ${#pending[@]} -gt 0 ]; do
        step=${pending[0]%:*} most=${pending[0]#*:} left=$((limit - SECONDS)) code=0 why=''
        if [ "$left" -lt 2 ]; then
            skip "$step$suffix" "no time is left"
            pending=("${pending[@]:1}")
            continue
        fi
        if [[ $step == scaling || $step == all-reduce ]] && [ "$count" -lt 2 ]; then
            skip "$step$suffix" "there is one GPU"
            pending=("${pending[@]:1}")
            continue
        fi
        say "$step$suffix"
        printf '== %s\n' "$step$suffix" >>"$log"
        from=$(($(wc -l <"$log") + 1))
        command_of "${pending[@]%:*}"
        # A session of its own, so that all of its processes can be killed.
        exec {lines}< <(exec setsid "${command[@]}" 2>>"$log")
        pid=$! began=$SECONDS
        while [ ${#pending[@]} -gt 0 ]; do
            step=${pending[0]%:*} most=${pending[0]#*:} left=$((limit - SECONDS))
            [ "$most" -le "$left" ] || most=$left
            # The time that is left of the step, rounded up: `read -t 0` would not read.
            left=$((most - (SECONDS - began)))
            code=0
            [ "$left" -gt 0 ] && read -r -t "$left" -u "$lines" text || code=$?
            if [ "$left" -le 0 ] || [ "$code" -gt 128 ]; then
                why="no end after $most s"
                break
            elif [ "$code" -ne 0 ]; then
                code=0
                wait "$pid" || code=$?
                # Of the step's own lines, the error, which a backtrace may follow.
                why=$(sed -n "$from,\$p" "$log" | grep . || true)
                why="exit code $code: $(grep -m 1 '^error' <<<"$why" || tail -n 1 <<<"$why")"
                break
            fi
            # With several ranks, a line begins with its rank in brackets.
            text=${text#\[*\] }
            case $text in
                '{"step":'*) line "$step$suffix" "$text" ;;
                *) printf '%s\n' "$text" >>"$log" && continue ;;
            esac
            case $text in
                *'"fact":"finished"'*) pending=("${pending[@]:1}") began=$SECONDS ;;
            esac
        done
        kill -9 -- "-$pid" 2>/dev/null || true
        exec {lines}<&-
        wait "$pid" 2>/dev/null || true
        [ -n "$why" ] || continue
        say "$step$suffix: $why"
        line "$step$suffix" "{,\"fact\":\"finished\",\"value\":null,\"unit\":$(quoted "$why"),\"ok\":false,\"seconds\":$((SECONDS - began))}"
        # What crashes takes less time to repeat than what hangs.
        case $why in
            exit*) failed=("${pending[0]}" "${failed[@]+"${failed[@]}"}") ;;
            *) failed+=("${pending[0]}") ;;
        esac
        pending=("${pending[@]:1}")
    done
}

# Runs the groups whose steps are among the last ones, or are not.
run_groups() {
    local group step chosen
    for group in "${groups[@]}"; do
        chosen=()
        for step in $group; do
            [ -z "$only" ] || [[ ,$only, == *,${step%:*},* ]] || continue
            if contains "${step%:*}" "${last[@]}"; then [ "$1" = last ]; else [ "$1" = first ]; fi || continue
            chosen+=("$step")
        done
        [ ${#chosen[@]} -eq 0 ] || attempt "" "${chosen[@]}"
    done
}

run_groups first
repeat=("${failed[@]+"${failed[@]}"}")
export CUDA_LAUNCH_BLOCKING=1
for step in "${repeat[@]+"${repeat[@]}"}"; do
    attempt -blocking "$step"
done
unset CUDA_LAUNCH_BLOCKING
run_groups last

# At most 8 files of 16 MiB come back from a borrowed machine.
tail -c 12M "$log" >"$log.end" && mv "$log.end" "$log"
total=$(wc -l <"$facts") wrong=$(grep -c '"ok":false' "$facts" || true)
say "$total facts, $wrong not ok, ${#failed[@]} steps did not finish, $SECONDS s: $facts"
grep '"ok":false' "$facts" | head -n 40 || true
[ "$wrong" -eq 0 ]

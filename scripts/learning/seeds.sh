#!/usr/bin/env bash
# Runs the quickstart with several seeds and writes one table: each row's accuracy by seed, its mean and standard deviation,
# claims that fail, commit, processor and seconds. A finished seed is not run again.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/seeds.sh text|vision|robot SEED… [--full]
#
# The runs are in $DIR (results/seeds), the table is `WORLD.md` there.
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() {
    printf 'usage: %s text|vision|robot SEED… [--full]\n' "$0" >&2
    exit 2
}

dir=${DIR:-results/seeds}
world=${1:-}
full=
options=()
case $world in
text) ;;
vision | robot) options+=("--$world") ;;
*) usage ;;
esac
shift
seeds=()
for argument in "$@"; do
    case $argument in
    --full) full=1 options+=(--full) ;;
    '' | *[!0-9]*) usage ;;
    *) seeds+=("$argument") ;;
    esac
done
[ ${#seeds[@]} -gt 0 ] || usage
runs=()
for seed in "${seeds[@]}"; do
    run=$dir/$world-$seed
    mkdir -p "$run"
    # `--full` adds its rows to a finished run without.
    if [ ! -e "$run/results.json" ] || { [ -n "$full" ] && [ ! -e "$run/full" ]; }; then
        quietly "$run.log" quickstart --json --seed "$seed" --output "$run" "${options[@]}"
        [ -z "$full" ] || touch "$run/full"
    fi
    runs+=("$run")
done
python3 "$root/scripts/learning/seeds.py" "${runs[@]}" | tee "$dir/$world.md"

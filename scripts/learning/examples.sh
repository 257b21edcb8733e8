#!/usr/bin/env bash
# The gain of reinforcement after 16, 24, 32 and 40 worked examples. Prints a Markdown table.
#
#     EMBODIED_R=target/release/embodied-r scripts/learning/examples.sh [DIR]
set -euo pipefail
# shellcheck source=scripts/learning/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${1:-results/learning}
seed=${SEED:-1}
# column ROW FIELD FILE: a number of results.json.
column() {
    tr -d '\n' <"$3" | sed "s/.*\"name\": \"$1\"[^}]*\"$2\": \([0-9.]*\).*/\1/"
}
mkdir -p "$dir"
printf '| worked examples | cold start | trained | gain |\n|--:|--:|--:|--:|\n'
for count in ${EXAMPLES:-16 24 32 40}; do
    run=$dir/examples-$count
    quietly "$dir/examples.log" quickstart --json --seed "$seed" --examples "$count" --output "$run"
    start=$(column 'cold start' accuracy_of_parsable "$run/results.json")
    trained=$(column trained accuracy_of_parsable "$run/results.json")
    printf '| %s | %.1f | %.1f | %.1f |\n' "$count" "$start" "$trained" \
        "$(awk "BEGIN { print $trained - $start }")"
done

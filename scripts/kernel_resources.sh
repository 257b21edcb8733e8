#!/usr/bin/env bash
# Prints registers and static shared memory of our CUDA kernels on compute capability 8.0 and 9.0, as ptxas reports them,
# and fails if one spills registers to memory. Needs nvcc, but no GPU.
#
#     eval "$(scripts/cuda_toolkit.sh)"; scripts/kernel_resources.sh [FILE.cu...]      all files of crates/kernels/cuda
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc
has "$nvcc" || fail "\`nvcc\` was not found" "run eval \"\$(scripts/cuda_toolkit.sh)\", or set CUDA_HOME"
has c++filt || fail "\`c++filt\` was not found" "install binutils"

folder=$root/crates/kernels/cuda
files=("$@")
[ "$#" -gt 0 ] || files=("$folder"/*.cu)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The flags are those of crates/kernels/build.rs.
compile() {
    local file=$1 arch=$2 report
    report=$work/$(basename "$file" .cu)-$arch
    "$nvcc" -O3 -std=c++17 --expt-relaxed-constexpr -I"$folder" -arch="sm_$arch" -Xptxas=-v -cubin -o "$report.cubin" \
        "$file" >"$report.txt" 2>&1 || fail "cannot compile \`$file\`" "$(cat "$report.txt")"
}
export nvcc folder work
export -f compile fail
printf '%s\n' "${files[@]}" | while read -r file; do printf '%s\0%s\0' "$file" 80 "$file" 90; done |
    xargs -0 -n 2 -P "$(nproc)" bash -c 'compile "$@"' compile || exit 1

printf '%-88s %5s %9s %6s %6s\n' kernel arch registers shared spills
cat "$work"/*.txt | c++filt | awk '
    # The name, without the type and the arguments.
    function short(name) {
        gsub(/\(anonymous namespace\)::/, "", name)
        sub(/^void /, "", name)
        sub(/\(.*/, "", name)
        gsub(/__nv_bfloat16/, "bf16", name)
        return name
    }
    # The number before a phrase, 0 without it.
    function number(phrase) {
        return match($0, "[0-9]+ " phrase) ? substr($0, RSTART, RLENGTH - length(phrase) - 1) + 0 : 0
    }
    /Compiling entry function/ { split($0, of, "\047"); name = short(of[2]); arch = of[4] }
    /spill stores/ { spills = number("bytes spill stores") + number("bytes spill loads") }
    /Used [0-9]+ registers/ {
        printf "%-88s %5s %9d %6d %6d\n", name, arch, number("registers"), number("bytes smem"), spills
        kernels++
        if (spills > 0) { print "error: `" name "` spills registers on " arch > "/dev/stderr"; failed = 1 }
    }
    END {
        if (!kernels) print "error: ptxas has reported no kernel" > "/dev/stderr"
        exit failed || !kernels
    }' | sort

#!/usr/bin/env bash
# Runs every check of the project, one after the other; the first failure ends it.
# On a fresh Debian or Ubuntu it installs the system packages first.
#
#     scripts/test.sh [played-gpu]      played-gpu: runs the build for GPUs on one that is played, and nothing else
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

system_packages
mpi_packages
kernel_packages
rust_toolchain
cd "$root"

# Our kernels are compiled, candle's are not: that takes ten minutes, and none of them runs. A folder of its own, so that
# no other build finds them empty.
for_gpus() {
    eval "$1"
    export NVCC=$root/scripts/empty_nvcc.sh CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/for-gpus"
}

case ${1:-} in
'') ;;
played-gpu)
    toolkit=$("$root/scripts/cuda_toolkit.sh") || fail "there is no CUDA toolkit"
    for_gpus "$toolkit"
    eval "$("$root/scripts/played_gpu.sh")"
    say "cargo test, the build for GPUs on one that is played"
    exec cargo test --workspace --features embodied-r-cli/cuda,embodied-r-tests/cuda --test played_gpu
    ;;
*) fail "there are no checks called \`$1\`" "run scripts/test.sh, or scripts/test.sh played-gpu" ;;
esac

# Ranks that talk through MPI.
mpi=embodied-r-cli/mpi,embodied-r-tests/mpi

say "cargo fmt"
cargo fmt --all --check

say "cargo clippy"
cargo clippy --workspace --all-targets -- -D warnings
cargo clippy --workspace --all-targets --features "$mpi" -- -D warnings

say "cargo doc"
RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

say "cargo test"
cargo test --workspace

say "cargo test, ranks over MPI"
# Of the whole workspace: alone, the packages would have other features, and all that they use would be built again.
cargo test --workspace --features "$mpi" --test mpi --test ranks --test perceive_ranks --test launch --test rank_faults

say "cargo test, the GPU's kernels on the CPU"
# Of the whole workspace, as above. Left out is what differs there by design: bits that depend on how a prompt is cut.
host=embodied-r-grpo/cuda-host,embodied-r-vision/cuda-host
EMBODIED_R_CUDA_HOST=1 cargo test --workspace --features "$host" \
    --lib --test launches --test masters --test parity --test shared_prompt --test lora_training -- \
    --skip a_request_gets_the_same_bits --skip a_sample_has_the_same_bits --skip a_picture_gives_the_same_bits \
    --skip layers_that_are_computed_again --skip incremental_path

if toolkit=$("$root/scripts/cuda_toolkit.sh"); then
    # Nothing is linked: running it takes a quarter of an hour more (`scripts/test.sh played-gpu`).
    say "cargo check, for GPUs"
    (for_gpus "$toolkit" && cargo check -p embodied-r-cli --features cuda)
else
    say "cargo check, for GPUs: skipped, there is no CUDA toolkit"
fi

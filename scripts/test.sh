#!/usr/bin/env bash
# Runs the checks of the project, one after the other, and stops at the first that fails; `cargo test` runs all tests first.
# On a fresh Debian or Ubuntu it installs the system packages first.
#
#     scripts/test.sh [--all]
#
# --all: also the CUDA build on the stub driver, and the address sanitizer; tests that kill the program do so 100 times
# instead of 10.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

all=no
case ${1:-} in
'') ;;
--all) all=yes ;;
*) fail "unknown argument \`$1\`" "run scripts/test.sh [--all]" ;;
esac

system_packages
mpi_packages
kernel_packages
rust_toolchain
cd "$root"

# Incremental compilation and many codegen units speed up the next build of a changed crate, at the cost of a build from
# nothing; line tables serve a debugger.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_CODEGEN_UNITS=1 CARGO_PROFILE_DEV_DEBUG=false
[ "$all" = no ] || export EMBODIED_R_KILLS=100

# One build serves all tests: ranks over MPI, and the CPU emulation of the CUDA kernels, which some tests of kernels turn
# on themselves, and EMBODIED_R_CUDA_HOST for all.
features=embodied-r-cli/mpi,embodied-r-tests/mpi
features+=,embodied-r-cli/cuda-host,embodied-r-grpo/cuda-host,embodied-r-vision/cuda-host,embodied-r-tests/cuda-host

# Prints a heading with the time since the start.
step() {
    say "[$((SECONDS / 60)):$(printf %02d $((SECONDS % 60)))] $*"
}

step "cargo fmt"
cargo fmt --all --check

step "cargo clippy"
cargo clippy --workspace --all-targets --features "$features" -- -D warnings

step "cargo check, default features"
cargo check --workspace --color never 2>&1 | tee >(cat >&2) | (! grep '^warning' >/dev/null) ||
    fail "the build with default features fails or has warnings" "see above"

step "cargo doc, default features"
RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

step "cargo test"
cargo test --workspace --features "$features" --no-fail-fast

step "cargo test, CUDA kernels emulated on the CPU"
# Skipped: bits that depend on how a prompt is chunked, which they do there by design; and tests that emulate the kernels
# in the stage above already, or use none.
EMBODIED_R_CUDA_HOST=1 cargo test --workspace --features "$features" --no-fail-fast \
    --exclude embodied-r-data --exclude embodied-r-eval --exclude embodied-r-files --exclude embodied-r-keyframes \
    --exclude embodied-r-launch --exclude embodied-r-lerobot --exclude embodied-r-openai --exclude embodied-r-random \
    --exclude embodied-r-rewards --exclude embodied-r-robot --exclude embodied-r-sim --exclude embodied-r-test-server \
    --exclude embodied-r-video \
    --lib --bin embodied-r-pretrain --test launches --test loading_on_device --test masters --test parity --test shared_prompt --test lora_training -- \
    --skip outputs_are_bit_identical_for_any_batch --skip a_sample_is_bit_identical \
    --skip an_image_has_bit_identical_log_probabilities --skip recomputed_layers_are_bit_identical \
    --skip incremental_decoding --skip check:: --skip simd_level:: --skip text_stream:: --skip video:: --skip corpus

# Our kernels are compiled; candle's are not: that takes ten minutes, and none of them runs. No other build may find them
# empty: a build has a target directory of its own, and the check gives candle's kernels a profile of their own, which
# keeps their files apart and shares all the rest.

if ! toolkit=$("$root/scripts/cuda_toolkit.sh"); then
    step "CUDA build: skipped, there is no CUDA toolkit"
elif [ "$all" = yes ]; then
    step "cargo test, CUDA build on the stub driver"
    (
        eval "$toolkit"
        export NVCC=$root/scripts/stub_nvcc.sh CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/cuda"
        eval "$("$root/scripts/stub_cuda.sh")"
        cargo test --workspace --features embodied-r-cli/cuda,embodied-r-tests/cuda --test stub_cuda
    )
    if toolkit=$("$root/scripts/cuda_toolkit.sh" --cuda 12); then
        step "cargo check, CUDA 12"
        (
            eval "$toolkit"
            export NVCC=$root/scripts/stub_nvcc.sh CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/cuda-12"
            cargo check --workspace --features embodied-r-cli/cuda
        )
    else
        step "cargo check, CUDA 12: skipped, there is no toolkit"
    fi
else
    step "cargo check, CUDA build"
    (
        eval "$toolkit"
        NVCC=$root/scripts/stub_nvcc.sh cargo check --workspace --features embodied-r-cli/cuda \
            --config 'profile.dev.package.candle-kernels.opt-level=3'
    )
fi

if [ -n "$toolkit" ]; then
    step "registers of the CUDA kernels"
    (
        eval "$toolkit"
        "$root/scripts/kernel_resources.sh" >/dev/null # errors only
    )
fi

if [ "$all" = yes ]; then
    step "address sanitizer"
    "$root/scripts/sanitize.sh"
fi
step "all checks passed"

#!/usr/bin/env bash
# Runs the tests of the crates with `unsafe` code under the address sanitizer.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rust_toolchain
cd "$root"

target=$(rustc -vV | sed -n 's/^host: //p')
# The sanitizer's flag is an unstable one, which the stable compiler takes with this variable.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address"
# A target given by name keeps build scripts and macros without the sanitizer.
say "cargo test of the kernels, address sanitizer"
cargo test --target "$target" --package embodied-r-kernels --lib --tests
say "cargo test of the policy's engine, address sanitizer"
cargo test --target "$target" --package embodied-r-policy --lib -- engine weights gguf

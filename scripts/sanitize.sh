#!/usr/bin/env bash
# Runs the tests of the kernels and of the inference engine under AddressSanitizer.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rust_toolchain
cd "$root"

target=$(rustc -vV | sed -n 's/^host: //p')
# The sanitizer flag is unstable; this variable enables it on the stable compiler.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address"
# An explicit target excludes build scripts and proc macros from the sanitizer.
say "cargo test of the kernels (AddressSanitizer)"
cargo test --target "$target" --package embodied-r-kernels --lib --tests
say "cargo test of the inference engine (AddressSanitizer)"
cargo test --target "$target" --package embodied-r-policy --lib -- engine weights gguf

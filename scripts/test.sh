#!/usr/bin/env bash
# Runs every check of the project, one after the other; the first failure ends it.
# On a fresh Debian or Ubuntu it installs the system packages first.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

system_packages
mpi_packages
rust_toolchain
cd "$root"

say "cargo fmt"
cargo fmt --all --check

say "cargo clippy"
cargo clippy --workspace --all-targets -- -D warnings
cargo clippy --workspace --all-targets --features embodied-r-cli/mpi,embodied-r-tests/mpi -- -D warnings

say "cargo doc"
RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

say "cargo test"
cargo test --workspace

say "cargo test, ranks over MPI"
cargo test -p embodied-r-dist --features mpi
cargo test -p embodied-r-tests --features mpi --test ranks

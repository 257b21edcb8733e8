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
cargo test --workspace --features "$mpi" --test mpi --test ranks --test perceive_ranks

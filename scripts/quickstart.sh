#!/usr/bin/env bash
# Builds embodied-r and runs its quickstart on built-in rooms. Arguments go to `embodied-r quickstart`, such as
# `--output DIR`.
# On a fresh Debian or Ubuntu it installs the system packages first.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

system_packages
rust_toolchain

say "cargo build --release"
# Built in the project's folder, where `rust-toolchain.toml` applies; run in the caller's folder, to which relative
# paths among the arguments refer.
(cd "$root" && cargo build --release --package embodied-r-cli)
target=$(cd "$root" && cargo metadata --format-version 1 --no-deps |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

say "embodied-r quickstart $*"
exec "$target/release/embodied-r" quickstart "$@"

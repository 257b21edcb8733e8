#!/usr/bin/env bash
# Builds embodied-r and runs its whole way on built-in rooms. Arguments go to
# `embodied-r quickstart`, such as `--out DIR`.
# On a fresh Debian or Ubuntu it installs the system packages first.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

system_packages
rust_toolchain

say "cargo build --release"
# In the project's folder, as its `rust-toolchain.toml` counts only there; the program itself runs
# in the caller's folder, so that relative paths among its arguments mean what they say.
(cd "$root" && cargo build --release --package embodied-r-cli)
target=$(cd "$root" && cargo metadata --format-version 1 --no-deps |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

say "embodied-r quickstart $*"
exec "$target/release/embodied-r" quickstart "$@"

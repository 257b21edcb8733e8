#!/usr/bin/env bash
# Installs missing system packages with apt-get. The Dockerfiles use it.
#
#     scripts/install.sh SET...
#
# SET is one of
#     build        C compiler and pkg-config
#     runtime      FFmpeg
#     mpi          Open MPI with headers, and libclang: to build feature `mpi`
#     mpi-runtime  Open MPI: to run a build with feature `mpi`
#     rustup       the Rust toolchain that rust-toolchain.toml names
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -gt 0 ] || fail "no package set given" "run scripts/install.sh build|runtime|mpi|mpi-runtime|rustup"
for set in "$@"; do
    case $set in
    build) build_packages ;;
    runtime) runtime_packages ;;
    mpi) mpi_packages ;;
    mpi-runtime) mpi_runtime_packages ;;
    rustup) rustup_toolchain ;;
    *) fail "unknown package set \`$set\`" "the sets are build, runtime, mpi, mpi-runtime and rustup" ;;
    esac
done

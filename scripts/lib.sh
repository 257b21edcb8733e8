# Sourced by the scripts beside it: messages, system packages, the Rust toolchain.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() {
    printf '==> %s\n' "$*"
}

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do
        printf 'hint: %s\n' "$line" >&2
    done
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Installs missing packages that the build and the program need.
system_packages() {
    build_packages
    runtime_packages
}

# What cargo needs: a C compiler and pkg-config.
build_packages() {
    local missing=()
    has cc || missing+=(gcc libc6-dev)
    has pkg-config || missing+=(pkg-config)
    install_packages "${missing[@]}"
}

# What the program needs: FFmpeg.
runtime_packages() {
    if ! has ffmpeg || ! has ffprobe; then
        install_packages ffmpeg
    fi
}

# What feature `mpi` and its tests need: Open MPI with its headers, libclang for the bindings, and `ip` for tests
# that run ranks in network namespaces.
mpi_packages() {
    local missing=()
    has mpicc || missing+=(libopenmpi-dev)
    has mpirun || missing+=(openmpi-bin)
    has ip || missing+=(iproute2)
    # libclang-cpp, Clang's C++ library, is not enough.
    compgen -G '/usr/lib/llvm-*/lib/libclang[-.][0-9s]*' >/dev/null || missing+=(libclang-dev)
    install_packages "${missing[@]}"
}

# What a program with feature `mpi` needs at run time.
mpi_runtime_packages() {
    has mpirun || install_packages openmpi-bin
}

# What the CPU emulation of the CUDA kernels needs: a C++ compiler.
kernel_packages() {
    has c++ || install_packages g++
}

# install_packages NAME...: installs Debian packages with apt-get.
install_packages() {
    local missing=("$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! has apt-get; then
        fail "missing system packages: ${missing[*]} (names as in Debian)" \
            "install them with this system's package manager, then run this script again"
    fi
    if [ "$(id -u)" -ne 0 ] && ! has sudo; then
        fail "missing system packages: ${missing[*]}" \
            "as root, run: apt-get install ${missing[*]}"
    fi
    say "installing with apt-get: ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# Installs the Rust toolchain with rustup, for container images.
rustup_toolchain() {
    has curl || install_packages curl ca-certificates
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y --no-modify-path --profile minimal --default-toolchain none
    (cd "$root" && "${CARGO_HOME:-$HOME/.cargo}/bin/rustup" toolchain install)
}

# Fails with a hint unless a recent enough `cargo` is installed.
rust_toolchain() {
    if ! has cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! has cargo; then
        fail "Rust is not installed: \`cargo\` was not found" \
            "install it from https://rustup.rs, open a new shell, and run this script again"
    fi
    local have want
    have=$(cd "$root" && cargo --version | cut -d ' ' -f 2) || fail "\`cargo --version\` failed" \
        "with rustup, run \`rustup toolchain install\` in \`$root\`"
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    if [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
        fail "Rust $want or newer is required, \`cargo\` is Rust $have" \
            "with rustup, \`rustup update\`; a distribution's own package is often too old"
    fi
    say "Rust $have"
}

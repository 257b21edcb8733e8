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

# Installs what the build and the video code need, where it is missing.
system_packages() {
    local missing=()
    if ! has ffmpeg || ! has ffprobe; then
        missing+=(ffmpeg)
    fi
    has cc || missing+=(gcc libc6-dev)
    has pkg-config || missing+=(pkg-config)

    install_packages "${missing[@]}"
}

# Installs what the ranks over MPI and their tests need, where it is missing.
mpi_packages() {
    local missing=()
    has mpicc || missing+=(libopenmpi-dev)
    has mpirun || missing+=(openmpi-bin)
    # Machines that are namespaces of this one.
    has ip || missing+=(iproute2)
    # Clang's C++ library, libclang-cpp, is another.
    compgen -G '/usr/lib/llvm-*/lib/libclang[-.][0-9s]*' >/dev/null || missing+=(libclang-dev)
    install_packages "${missing[@]}"
}

# Installs what the GPU's kernels need to be compiled for the CPU, where it is missing.
kernel_packages() {
    has c++ || install_packages g++
}

# Installs the packages named, with apt-get.
install_packages() {
    local missing=("$@")
    if [ "${#missing[@]}" -eq 0 ]; then
        say "system packages: all there"
        return
    fi
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

# Stops with advice unless a `cargo` that is new enough can be run.
rust_toolchain() {
    if ! has cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! has cargo; then
        fail "Rust is not installed: there is no \`cargo\`" \
            "install it as https://rustup.rs says, open a new shell, and run this script again"
    fi
    local have want
    have=$(cd "$root" && cargo --version | cut -d ' ' -f 2) || fail "\`cargo --version\` failed" \
        "with rustup, \`rustup toolchain install\` in \`$root\` fetches the toolchain it names"
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    if [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
        fail "Rust $want or newer is needed, \`cargo\` is of Rust $have" \
            "with rustup, \`rustup update\`; a distribution's own package is often too old"
    fi
    say "Rust $have"
}

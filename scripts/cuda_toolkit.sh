#!/usr/bin/env bash
# What compiling feature `cuda` needs, for machines without a CUDA toolkit, a driver or a GPU: NVIDIA's wheels from
# PyPI, laid out as a toolkit (about 1.5 GB). Prints the variables that cargo's builds need.
#
#     eval "$(scripts/cuda_toolkit.sh [FOLDER])"      FOLDER: ~/.cache/embodied-r/cuda-13.0
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/embodied-r/cuda-13.0}

# Compiler, its headers, the runtime, and the libraries that candle and our products link with.
wheels=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-cccl==13.0.85
    nvidia-cuda-nvrtc==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cublas==13.0.2.14
    nvidia-curand==10.4.0.35
    nvidia-nccl-cu13==2.28.9
)

# Lays out the wheels in $1, by way of the folder $2.
lay_out() {
    local made=$1 work=$2 wheel library
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$work" "${wheels[@]}" >&2 || return 1
    for wheel in "$work"/*.whl; do
        python3 -m zipfile -e "$wheel" "$work/unpacked" || return 1
    done
    mkdir -p "$made"
    cp -a "$work/unpacked/nvidia/cu13/." "$made/"
    cp -a "$work/unpacked/nvidia/nccl/." "$made/"
    chmod +x "$made"/bin/* "$made"/nvvm/bin/*
    ln -s lib "$made/lib64"

    # Linkers look for names without a version.
    for library in "$made"/lib/lib*.so.*; do
        ln -sf "${library##*/}" "${library%%.so.*}.so"
    done

    # The driver's own library comes with drivers alone: to link, its names without content do.
    mkdir -p "$made/lib/stubs"
    grep -Eoh '\bcu[A-Z]\w*' "$made/include/cuda.h" | sort -u | sed 's/$/() {}/; s/^/void /' |
        cc -x c -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$made/lib/stubs/libcuda.so" -
}

if [ ! -x "$folder/bin/nvcc" ]; then
    has python3 || fail "a CUDA toolkit is made from PyPI's wheels by \`python3 -m pip\`: there is no \`python3\`"
    has cc || fail "a CUDA toolkit needs a C compiler"
    mkdir -p "$(dirname "$folder")"
    work=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    lay_out "$work/toolkit" "$work" || fail "cannot get NVIDIA's wheels from PyPI" \
        "install CUDA 13 from https://developer.nvidia.com/cuda-downloads and set CUDA_HOME"
    mv "$work/toolkit" "$folder"
fi

# candle compiles its kernels for one kind of card; A100 is 80, H100 is 90.
printf 'export CUDA_HOME=%q CUDA_PATH=%q CUDA_ROOT=%q CUDA_TOOLKIT_ROOT_DIR=%q\n' "$folder" "$folder" "$folder" "$folder"
printf 'export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}\n'
printf 'export PATH=%q:$PATH\n' "$folder/bin"
printf 'export LIBRARY_PATH=%q:%q${LIBRARY_PATH:+:$LIBRARY_PATH}\n' "$folder/lib" "$folder/lib/stubs"

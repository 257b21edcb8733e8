#!/usr/bin/env bash
# Assembles a CUDA toolkit from NVIDIA's wheels on PyPI (about 1.5 GB), to compile feature `cuda` on a machine without a
# toolkit; no driver or GPU is needed. Prints the environment variables to set for cargo.
#
#     eval "$(scripts/cuda_toolkit.sh [FOLDER])"      FOLDER: ~/.cache/embodied-r/cuda-13.0
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/embodied-r/cuda-13.0}

# The compiler with its headers, the runtime, and the libraries that candle and our kernels link with.
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

# Assembles the toolkit in $1, with $2 as working folder.
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

    # Linkers need names without a version.
    for library in "$made"/lib/lib*.so.*; do
        ln -sf "${library##*/}" "${library%%.so.*}.so"
    done

    # libcuda.so comes with the driver only; a stub with its symbols is enough to link.
    mkdir -p "$made/lib/stubs"
    grep -Eoh '\bcu[A-Z]\w*' "$made/include/cuda.h" | sort -u | sed 's/$/() {}/; s/^/void /' |
        cc -x c -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$made/lib/stubs/libcuda.so" -
}

if [ ! -x "$folder/bin/nvcc" ]; then
    has python3 || fail "\`python3\` was not found; it downloads the CUDA toolkit's wheels" \
        "install python3 with pip, or install CUDA 13 and set CUDA_HOME"
    has cc || fail "no C compiler (\`cc\`) was found" "run scripts/install.sh build"
    mkdir -p "$(dirname "$folder")"
    work=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    lay_out "$work/toolkit" "$work" || fail "cannot download NVIDIA's wheels from PyPI" \
        "install CUDA 13 from https://developer.nvidia.com/cuda-downloads and set CUDA_HOME"
    mv "$work/toolkit" "$folder"
fi

# candle compiles its kernels for one compute capability: 80 is A100, 90 is H100.
printf 'export CUDA_HOME=%q CUDA_PATH=%q CUDA_ROOT=%q CUDA_TOOLKIT_ROOT_DIR=%q\n' "$folder" "$folder" "$folder" "$folder"
printf 'export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}\n'
printf 'export PATH=%q:$PATH\n' "$folder/bin"
printf 'export LIBRARY_PATH=%q:%q${LIBRARY_PATH:+:$LIBRARY_PATH}\n' "$folder/lib" "$folder/lib/stubs"

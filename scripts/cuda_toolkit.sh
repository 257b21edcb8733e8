#!/usr/bin/env bash
# Assembles a CUDA toolkit from NVIDIA's wheels on PyPI (about 1.2 GB), to compile feature `cuda` on a machine without a
# toolkit; no driver or GPU is needed. Prints the environment variables to set for cargo.
#
#     eval "$(scripts/cuda_toolkit.sh [--cuda 12] [FOLDER])"      FOLDER: ~/.cache/embodied-r/cuda-13.0, or cuda-12.4
#
# CUDA 12's wheels lack nvcc; it comes from Debian's package.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=13.0
if [ "${1:-}" = --cuda ]; then
    case ${2:-} in
    12) version=12.4 ;;
    13) ;;
    *) fail "\`--cuda\` is \`${2:-}\`" "give 12 or 13" ;;
    esac
    shift 2
fi
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/embodied-r/cuda-$version}

# The compiler with its headers, the runtime, and the libraries that candle and our kernels link with.
wheels_13=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-cccl==13.0.85
    nvidia-cuda-nvrtc==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cublas==13.0.2.14
    nvidia-curand==10.4.0.35
)
wheels_12=(
    nvidia-cuda-nvcc-cu12==12.4.131
    nvidia-cuda-cccl-cu12==12.9.27
    nvidia-cuda-nvrtc-cu12==12.4.127
    nvidia-cuda-runtime-cu12==12.4.127
    nvidia-cublas-cu12==12.4.5.8
    nvidia-curand-cu12==10.3.5.147
)
nvcc_12=http://deb.debian.org/debian/pool/non-free/n/nvidia-cuda-toolkit/nvidia-cuda-toolkit_12.4.131~12.4.1-2_amd64.deb
nvcc_12_sha256=cd5fe85aee38d108b315f408a688641478f2402622a10c677478eb7a6c4e5319

# unpack FOLDER WHEEL...: downloads wheels and unpacks them into FOLDER.
unpack() {
    local work=$1 wheel
    shift
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$work" "$@" >&2 || return 1
    for wheel in "$work"/*.whl; do
        python3 -m zipfile -e "$wheel" "$work/unpacked" || return 1
    done
}

# Assembles CUDA 13 in $1, with $2 as working folder.
lay_out_13() {
    unpack "$2" "${wheels_13[@]}" || return 1
    cp -a "$2/unpacked/nvidia/cu13/." "$1/"
}

# Assembles CUDA 12 in $1, with $2 as working folder.
lay_out_12() {
    local made=$1 work=$2 part
    unpack "$work" "${wheels_12[@]}" || return 1
    for part in "$work"/unpacked/nvidia/*/; do
        cp -a "$part." "$made/"
    done
    curl -sSf -o "$work/nvcc.deb" "$nvcc_12" || return 1
    echo "$nvcc_12_sha256  $work/nvcc.deb" | sha256sum --check --quiet >&2 || return 1
    dpkg-deb -x "$work/nvcc.deb" "$work/deb" || return 1
    mkdir -p "$made/nvvm/bin" &&
        cp "$work"/deb/usr/bin/{bin2c,cudafe++,fatbinary,nvlink,ptxas} "$made/bin/" &&
        cp -a "$work"/deb/usr/lib/nvidia-cuda-toolkit/bin/{nvcc,crt} "$made/bin/" &&
        cp "$work/deb/usr/lib/nvidia-cuda-toolkit/bin/cicc" "$made/nvvm/bin/" || return 1
    # As in NVIDIA's own packages.
    cat >"$made/bin/nvcc.profile" <<'PROFILE'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
LD_LIBRARY_PATH += $(TOP)/lib:
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib/stubs" "-L$(TOP)/lib"
PROFILE
}

# Adds to the toolkit in $1 what the wheels lack.
complete() {
    local made=$1 library
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
        "install python3 with pip, or install CUDA and set CUDA_HOME"
    has cc || fail "no C compiler (\`cc\`) was found" "run scripts/install.sh build"
    mkdir -p "$(dirname "$folder")"
    work=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/toolkit"
    "lay_out_${version%.*}" "$work/toolkit" "$work" || fail "cannot download NVIDIA's wheels from PyPI" \
        "install CUDA from https://developer.nvidia.com/cuda-downloads and set CUDA_HOME"
    complete "$work/toolkit"
    mv "$work/toolkit" "$folder"
fi

# candle compiles its kernels for one compute capability: 80 is A100, 90 is H100.
printf 'export CUDA_HOME=%q CUDA_PATH=%q CUDA_ROOT=%q CUDA_TOOLKIT_ROOT_DIR=%q\n' "$folder" "$folder" "$folder" "$folder"
printf 'export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}\n'
printf 'export PATH=%q:$PATH\n' "$folder/bin"
printf 'export LIBRARY_PATH=%q:%q${LIBRARY_PATH:+:$LIBRARY_PATH}\n' "$folder/lib" "$folder/lib/stubs"

#!/usr/bin/env bash
# Builds the stub CUDA driver of tests/stub_cuda, so that a `--features cuda` build runs on a machine without a GPU: four
# GPUs, the libraries under their real names, NCCL in a folder of its own, and `nvidia-smi`. Prints the environment
# variables to set.
#
#     eval "$(scripts/stub_cuda.sh [FOLDER])"      FOLDER: ~/.cache/embodied-r/stub-cuda
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/embodied-r/stub-cuda}
sources=$root/tests/stub_cuda

mkdir -p "$folder/nccl"
# build NAME FILE...: a shared library in the folder. Running processes keep the old one.
build() {
    local name=$1
    shift
    cc -std=gnu11 -O1 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-builtin-declaration-mismatch -shared -fPIC \
        -pthread -o "$folder/new.so" "$@"
    mv "$folder/new.so" "$folder/$name"
}
build libstub.so "-Wl,--version-script=$sources/versions.map" "$sources"/{driver,libraries}.c
for library in libcuda.so.1 libcudart.so.13 libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do
    ln -sf libstub.so "$folder/$library"
done
rm -f "$folder/libnccl.so.2"
build nccl/libnccl.so.2 "$sources/nccl.c"

cat >"$folder/nvidia-smi" <<'SMI'
#!/bin/sh
for i in 0 1 2 3; do echo "$i, GPU-0000000$i, 00000000:0$i:00.0"; done
SMI
chmod +x "$folder/nvidia-smi"

printf 'export LD_LIBRARY_PATH=%q:%q${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\n' "$folder" "$folder/nccl"
printf 'export PATH=%q:$PATH\n' "$folder"

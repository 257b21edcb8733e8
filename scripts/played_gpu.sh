#!/usr/bin/env bash
# A machine with four GPUs that are played, for a build with `--features cuda` where there is none: the libraries of
# tests/played_gpu under the names that such a build looks for, and `nvidia-smi`. Prints the variables under which it is
# found.
#
#     eval "$(scripts/played_gpu.sh [FOLDER])"      FOLDER: ~/.cache/embodied-r/played-gpu
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/embodied-r/played-gpu}
sources=$root/tests/played_gpu

mkdir -p "$folder"
# Whoever runs on the old one keeps it.
cc -std=gnu11 -O1 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-builtin-declaration-mismatch -shared -fPIC -pthread \
    "-Wl,--version-script=$sources/versions.map" -o "$folder/new.so" "$sources"/*.c
mv "$folder/new.so" "$folder/libplayed.so"
for library in libcuda.so.1 libcudart.so.13 libcublas.so.13 libcublasLt.so.13 libcurand.so.10 libnccl.so.2; do
    ln -sf libplayed.so "$folder/$library"
done

cat >"$folder/nvidia-smi" <<'SMI'
#!/bin/sh
for i in 0 1 2 3; do echo "$i, GPU-0000000$i, 00000000:0$i:00.0"; done
SMI
chmod +x "$folder/nvidia-smi"

printf 'export LD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\n' "$folder"
printf 'export PATH=%q:$PATH\n' "$folder"

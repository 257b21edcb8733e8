#!/usr/bin/env bash
# Packs the CUDA program for a machine with a GPU that has no compiler and no network, and prints the command that unpacks
# it there and runs scripts/gpu_check.sh. Needs neither driver nor GPU. The machine needs the tracked files of this
# repository, the pack, NVIDIA's driver, and the libraries of CUDA 13, which PyTorch's wheels have.
#
#     scripts/gpu_pack.sh [--capability NUMBER] [--program FILE]
#
#     --capability  compute capability of the GPU without the dot, such as 80 or 90   [default: 90]
#     --program     pack this binary, built with `--features cuda`, instead of building one
#
# The pack is target/gpu-pack/embodied-r.xz. Together with the tracked files it must stay below 60 MiB.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

capability=90 program=''
while [ $# -gt 0 ]; do
    case $1 in
        --capability | --program)
            [ $# -gt 1 ] || fail "\`$1\` needs a value" "see the head of scripts/gpu_pack.sh" ;;&
        --capability) capability=$2 && shift 2 ;;
        --program) program=$2 && shift 2 ;;
        *) fail "unknown option \`$1\`" "see the head of scripts/gpu_pack.sh" ;;
    esac
done

# Libraries that such a machine has: of the system, of the driver, and of NVIDIA's wheels. NCCL is loaded when it is needed.
present=(
    ld-linux-x86-64.so.2 libc.so.6 libdl.so.2 libgcc_s.so.1 libm.so.6 libpthread.so.0 librt.so.1 libstdc++.so.6
    libcuda.so.1
    libcublas.so.13 libcublasLt.so.13 libcudart.so.13 libcurand.so.10
)
limit=$((60 << 20))
pack=target/gpu-pack
cd "$root"

if [ -z "$program" ]; then
    eval "$(CUDA_COMPUTE_CAP=$capability scripts/cuda_toolkit.sh)"
    export CUDA_COMPUTE_CAP=$capability CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/gpu
    cargo build --release --locked --package embodied-r-cli --features cuda
    program=$CARGO_TARGET_DIR/release/embodied-r
fi

has readelf || fail "\`readelf\` was not found" "install binutils"
has xz || fail "\`xz\` was not found" "install xz-utils"
lacking=$(readelf --dynamic "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
    grep -vxF "$(printf '%s\n' "${present[@]}")" | tr '\n' ' ') || true
[ -z "$lacking" ] || fail "the program needs libraries that the machine may lack: $lacking" \
    "build it with CUDA 13, as without --program"

mkdir -p "$pack"
xz -9 --threads=0 --stdout "$program" >"$pack/embodied-r.xz"
tracked=$(git ls-files -z | du --files0-from=- --bytes --total | tail -n 1 | cut -f 1)
packed=$(stat -c %s "$pack/embodied-r.xz")
say "program $(stat -c %s "$program") bytes, packed $packed, tracked files $tracked, together $((packed + tracked)) of $limit"
[ $((packed + tracked)) -lt "$limit" ] || fail "pack and tracked files are larger than $limit bytes"

# Python, which has NVIDIA's libraries there, unpacks: the machine may lack xz.
read -r -d '' command <<COMMAND || true
set -e; d=\$(mktemp -d); python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' $pack/embodied-r.xz \$d/embodied-r; chmod +x \$d/embodied-r; export LD_LIBRARY_PATH=\$(python3 -c 'import nvidia, pathlib; print(":".join(str(lib) for root in nvidia.__path__ for lib in pathlib.Path(root).glob("*/lib")))'):\$LD_LIBRARY_PATH; scripts/gpu_check.sh --program \$d/embodied-r --out "\${OUT:-results}/gpu-check"
COMMAND
[ ${#command} -le 2000 ] || fail "the command has ${#command} characters, more than 2,000"
say "copy the tracked files and $pack to the machine, and run there in the repository's folder:"
printf '%s\n' "$command"

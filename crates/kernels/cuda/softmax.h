// Reductions shared by the softmax kernels.
#pragma once

#include "device.h"

__device__ inline float warp_max(float x) {
    for (int step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, step));
    return x;
}

// Maximum over a block of whole warps; returned to all threads.
__device__ inline float block_max(float x) {
    __shared__ float parts[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_max(x);
    __syncthreads(); // previous readers are done
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    const int warps = int(blockDim.x) / WARP;
    return warp_max(lane < warps ? parts[lane] : -INFINITY);
}

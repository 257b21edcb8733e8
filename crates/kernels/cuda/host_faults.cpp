// Faulty kernels, to test the emulator's checks.

#include "device.h"

__global__ void half_a_barrier_kernel() {
    if (threadIdx.x < blockDim.x / 2) __syncthreads();
}

__global__ void missing_lane_kernel(float* x) { x[threadIdx.x] = warp_sum(x[threadIdx.x]); }

__global__ void left_out_kernel(float* x) { x[threadIdx.x] = __shfl_sync(0xffff, x[threadIdx.x], 20); }

extern "C" int er_host_fault(int which) {
    float values[WARP] = {};
    float* const x = values;
    switch (which) {
        case 0: return LAUNCH(half_a_barrier_kernel, 1, 64, 0, nullptr);
        case 1: return LAUNCH(missing_lane_kernel, 1, 20, 0, nullptr, x);
        case 2: return LAUNCH(left_out_kernel, 1, 16, 0, nullptr, x);
        case 3: return LAUNCH(half_a_barrier_kernel, 1, 64, 48 * 1024 + 1, nullptr);
        default: return LAUNCH(half_a_barrier_kernel, 0, 64, 0, nullptr);
    }
}

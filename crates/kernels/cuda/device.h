// Included by every kernel file: CUDA, or its CPU emulation on the host.
#pragma once

#ifdef EMBODIED_R_HOST
#include "host.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

// Launches a kernel and returns CUDA's error code. Kernels with several template arguments need parentheses.
#define LAUNCH(kernel, grid, block, shared, stream, ...) \
    ((kernel)<<<(grid), (block), (shared), (cudaStream_t)(stream)>>>(__VA_ARGS__), (int)cudaGetLastError())

// The block's dynamic shared memory as an array `name` of T.
#define DYNAMIC_SHARED(T, name)                                           \
    extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[]; \
    T* const name = reinterpret_cast<T*>(dynamic_shared_bytes)

// Allows a kernel all of the device's dynamic shared memory instead of 48 KiB; returns CUDA's error code. Only the first
// call per kernel and device does something: another thread may be launching the kernel.
#define ALLOW_SHARED(kernel) allow_shared((const void*)(kernel))
int allow_shared(const void* kernel);
#endif

typedef __nv_bfloat16 bf16;

// Element types: `cuda::Dtype` in Rust.
enum Dtype { F32 = 0, BF16 = 1, U32 = 2 };

// Error code for an unsupported dtype: CUDA's cudaErrorInvalidValue.
constexpr int NO_SUCH_TYPE = 1;

// Runs `...` with `T` as the type of `dtype`, or returns NO_SUCH_TYPE.
#define WITH_TYPE(dtype, T, ...)                        \
    switch (dtype) {                                    \
        case F32: { using T = float; __VA_ARGS__; break; } \
        case BF16: { using T = bf16; __VA_ARGS__; break; } \
        default: return NO_SUCH_TYPE;                   \
    }

constexpr int WARP = 32;
constexpr unsigned FULL_WARP = 0xffffffffu;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }

template <class T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

// V elements loaded and stored as one vector.
template <class T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack { T of[V]; };

template <int V, class T> __device__ inline Pack<T, V> load(const T* from) {
    return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <int V, class T> __device__ inline void store(T* to, const Pack<T, V>& pack) {
    *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

// Whether rows of `length` allow vectorized access: 16-byte aligned, and a multiple of the pack.
inline bool vectorizable(uintptr_t addresses, long long length, int pack) {
    return addresses % 16 == 0 && length % pack == 0;
}

template <class... P> inline uintptr_t addresses(P... pointers) {
    return (uintptr_t(0) | ... | reinterpret_cast<uintptr_t>(pointers));
}

// Elements per pack: 16 bytes of bf16, or 32 of f32.
constexpr int PACK = 8;

// Runs `...` with the constant `V`: PACK if vectorized, else 1.
#define WITH_PACKS(vectorized, V, ...)                        \
    if (vectorized) { constexpr int V = PACK; __VA_ARGS__; }  \
    else { constexpr int V = 1; __VA_ARGS__; }

__device__ inline float warp_sum(float x) {
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(FULL_WARP, x, step);
    return x;
}

// Sum over a block of whole warps, in an order that depends on the block size alone; returned to all threads.
__device__ inline float block_sum(float x) {
    __shared__ float parts[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_sum(x);
    __syncthreads(); // previous readers are done
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    const int warps = blockDim.x / WARP;
    return warp_sum(lane < warps ? parts[lane] : 0.0f);
}

// Threads per block for `items`: whole warps, at most `limit`.
inline int threads_for(long long items, int limit = 256) {
    const long long whole = (items + WARP - 1) / WARP * WARP;
    return int(whole < WARP ? WARP : whole > limit ? limit : whole);
}

// Blocks of `threads` for `items`; threads loop if there are too many.
inline unsigned blocks_for(long long items, int threads) {
    const long long blocks = (items + threads - 1) / threads;
    return unsigned(blocks < 1 ? 1 : blocks > 65536 ? 65536 : blocks);
}

__device__ inline long long first_item() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline long long item_step() { return (long long)gridDim.x * blockDim.x; }

// Kernels over rows of elements: the grid's x counts rows and its y the elements of a row, so that indices within a row
// have 32 bits and nothing is divided per element. Both loop if there are too many.
constexpr int ROW_THREADS = 256;

inline dim3 row_grid(long long rows, long long items) {
    const long long along = (items + ROW_THREADS - 1) / ROW_THREADS;
    return dim3(blocks_for(rows, 1), unsigned(along < 1 ? 1 : along > 65535 ? 65535 : along));
}

// Whether indices within a row of `items` have 32 bits, with room for a step past the end.
inline bool row_fits(long long items) { return items <= 1ll << 30; }

__device__ inline int first_in_row() { return int(blockIdx.y * blockDim.x + threadIdx.x); }
__device__ inline int step_in_row() { return int(gridDim.y * blockDim.x); }

// CPU emulation of CUDA: compiles the same kernel files for the host, to test them without a GPU.
//
// Blocks run sequentially. The threads of a block are fibers that switch at barriers and warp operations, so
// indexing, barriers and exchanges are really exercised. A barrier that not all threads reach, or an exchange with an
// inactive lane, aborts the process with a message. Shared memory holds NaN until a block writes it. Tensor-core
// instructions and asynchronous copies are in host_mma.h.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static thread_local
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct __nv_bfloat16 { uint16_t bits; };

inline float __bfloat162float(__nv_bfloat16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

// Rounds to nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
}

inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __float2bfloat16(x); }

inline void sincos(double x, double* sine, double* cosine) { *sine = std::sin(x), *cosine = std::cos(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class To, class From> inline To host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the sizes differ");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

inline unsigned __float_as_uint(float x) { return host_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return host_bits<float>(x); }
inline int __float_as_int(float x) { return host_bits<int>(x); }
inline float __int_as_float(int x) { return host_bits<float>(x); }

template <class T> inline T __ldg(const T* from) { return *from; }

// Fibers switch only at barriers and warp operations, so plain memory accesses are atomic.
template <class T> inline T atomicAdd(T* at, T x) { T was = *at; *at = was + x; return was; }
template <class T> inline T atomicMax(T* at, T x) { T was = *at; if (x > was) *at = x; return was; }
template <class T> inline T atomicMin(T* at, T x) { T was = *at; if (x < was) *at = x; return was; }
template <class T> inline T atomicExch(T* at, T x) { T was = *at; *at = x; return was; }
template <class T> inline T atomicCAS(T* at, T old, T x) { T was = *at; if (was == old) *at = x; return was; }
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace host {

constexpr int NO_LANE = 32;

typedef void (*Body)(void*);

// Name and address of a kernel.
struct Kernel {
    const char* name;
    const void* address;
};

// Runs `body(context)` once per thread of each block; returns CUDA's error code.
int launch(dim3 grid, dim3 block, size_t shared, Kernel kernel, Body body, void* context);

template <class F> int launch(dim3 grid, dim3 block, size_t shared, Kernel kernel, F f) {
    return launch(grid, block, shared, kernel, [](void* f) { (*static_cast<F*>(f))(); }, &f);
}

// Allows a kernel more than 48 KiB of dynamic shared memory; returns CUDA's error code.
int allow_shared(const void* kernel);

// Waits for all threads of the block.
void barrier();

// What a lane sends to the others of its warp.
struct Message { uint64_t words[3]; };

// Sends `message` to the lanes of `mask`, and returns what each lane has sent once all have arrived. A `reading` below
// 32 must be one of the lanes.
const Message* exchange(unsigned mask, const Message& message, int reading);

int lane(); // of the running thread in its warp

void* dynamic_shared();

[[noreturn]] void fault(const char* what);

template <class T> T shuffle(unsigned mask, T x, int from) {
    static_assert(sizeof(T) <= 8, "shuffles are of at most 8 bytes");
    Message message{};
    memcpy(message.words, &x, sizeof x);
    const Message received = exchange(mask, message, from)[from];
    T out;
    memcpy(&out, received.words, sizeof out);
    return out;
}

} // namespace host

#define LAUNCH(kernel, grid, block, shared, stream, ...) \
    ((void)(stream), host::launch((grid), (block), (shared), {#kernel, (const void*)(kernel)}, \
                                  [=] { (kernel)(__VA_ARGS__); }))

#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(host::dynamic_shared())

#define ALLOW_SHARED(kernel) host::allow_shared((const void*)(kernel))

inline void __syncthreads() { host::barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { host::exchange(mask, {}, host::NO_LANE); }

template <class T> T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
    return host::shuffle(mask, x, host::lane() / width * width + (from & (width - 1)));
}

template <class T> T __shfl_xor_sync(unsigned mask, T x, int step, int width = 32) {
    const int to = host::lane() ^ step;
    return host::shuffle(mask, x, to / width > host::lane() / width ? host::lane() : to);
}

template <class T> T __shfl_down_sync(unsigned mask, T x, int step, int width = 32) {
    const int at = host::lane();
    return host::shuffle(mask, x, at % width + step < width ? at + step : at);
}

template <class T> T __shfl_up_sync(unsigned mask, T x, int step, int width = 32) {
    const int at = host::lane();
    return host::shuffle(mask, x, at % width >= step ? at - step : at);
}

inline unsigned __ballot_sync(unsigned mask, int holds) {
    const host::Message* received = host::exchange(mask, {{holds != 0}}, host::NO_LANE);
    unsigned out = 0;
    for (int i = 0; i < 32; i++) out |= (mask >> i & 1u) && received[i].words[0] ? 1u << i : 0u;
    return out;
}

inline int __any_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) != 0; }
inline int __all_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) == mask; }

// Block-quantized weights in ggml's layouts: dequantization, and fused dequantize-GEMV.

#include "device.h"

// `cuda::quantized::code` in Rust.
enum Format { Q4_0 = 0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K };

// Elements dequantized at a time; they share one scale.
constexpr int RUN = 8;

// IEEE half precision, little-endian.
__device__ inline float half_at(const uint8_t* at) {
    const unsigned bits = at[0] | at[1] << 8, magnitude = (bits & 0x7fffu) << 13;
    const unsigned special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    const unsigned value = __float_as_uint(__uint_as_float(magnitude) * __uint_as_float(0x77800000u)) | special;
    return __uint_as_float(value | (bits & 0x8000u) << 16);
}

// Nibbles of RUN of 32 elements, from `at` on: the low nibbles of 16 bytes come before the high ones.
__device__ inline unsigned nibble(const uint8_t* bytes, int at, int i) {
    return bytes[(at & 8) + i] >> (at & 16 ? 4 : 0) & 15;
}

__device__ inline unsigned bits_at(const uint8_t* at) { return at[0] | at[1] << 8 | at[2] << 16 | unsigned(at[3]) << 24; }

// Scale and minimum of one of eight groups, 6 bits each in 12 bytes.
__device__ inline float2 group(const uint8_t* packed, int g) {
    if (g < 4) return make_float2(float(packed[g] & 63), float(packed[g + 4] & 63));
    const unsigned low = packed[g + 4];
    return make_float2(float((low & 15) | packed[g - 4] >> 6 << 4), float(low >> 4 | packed[g] >> 6 << 4));
}

// For each format: elements and bytes per block, and dequantization of RUN elements from `at` on. With FIFTH, the
// fifth bits are stored apart from the nibbles.

// d · (q - 8), or with a fifth bit d · (q - 16).
template <bool FIFTH> struct SignedBlock {
    static constexpr int LEN = 32, HIGH = FIFTH ? 4 : 0, BYTES = 18 + HIGH;
    static __device__ void run(const uint8_t* b, int at, float* y) {
        const float d = half_at(b);
        const unsigned high = FIFTH ? bits_at(b + 2) >> at : 0;
        for (int i = 0; i < RUN; i++)
            y[i] = d * float(int(nibble(b + 2 + HIGH, at, i) | (high >> i & 1) << 4) - (FIFTH ? 16 : 8));
    }
};

// d · q + m.
template <bool FIFTH> struct ShiftedBlock {
    static constexpr int LEN = 32, HIGH = FIFTH ? 4 : 0, BYTES = 20 + HIGH;
    static __device__ void run(const uint8_t* b, int at, float* y) {
        const float d = half_at(b), m = half_at(b + 2);
        const unsigned high = FIFTH ? bits_at(b + 4) >> at : 0;
        for (int i = 0; i < RUN; i++) y[i] = d * float(nibble(b + 4 + HIGH, at, i) | (high >> i & 1) << 4) + m;
    }
};

// d · q with a signed byte q.
struct ByteBlock {
    static constexpr int LEN = 32, BYTES = 34;
    static __device__ void run(const uint8_t* b, int at, float* y) {
        const float d = half_at(b);
        for (int i = 0; i < RUN; i++) y[i] = d * float(int8_t(b[2 + at + i]));
    }
};

// d · scale · q - dmin · min, with scales and minimums of eight groups; bit g of 32 bytes is the fifth bit of group
// g.
template <bool FIFTH> struct GroupedBlock {
    static constexpr int LEN = 256, HIGH = FIFTH ? 32 : 0, BYTES = 144 + HIGH;
    static __device__ void run(const uint8_t* b, int at, float* y) {
        const int g = at / 32;
        const float2 own = group(b + 4, g);
        const float d = half_at(b) * own.x, m = half_at(b + 2) * own.y;
        const uint8_t *high = b + 16 + at % 32, *q = high + HIGH + 32 * (g / 2);
        for (int i = 0; i < RUN; i++) {
            const unsigned fifth = FIFTH ? (high[i] >> g & 1) << 4 : 0;
            y[i] = d * float((q[i] >> (g % 2 * 4) & 15) | fifth) - m;
        }
    }
};

// d · scale · (q - 32): four bits of each element, then two, then scales of groups of 16.
struct SixBitBlock {
    static constexpr int LEN = 256, BYTES = 210;
    static __device__ void run(const uint8_t* b, int at, float* y) {
        const int half = at / 128, k = at % 128 / 32, first = at % 32;
        const float d = half_at(b + 208) * float(int8_t(b[192 + 8 * half + first / 16 + 2 * k]));
        const uint8_t *low = b + 64 * half + first + 32 * (k % 2), *high = b + 128 + 32 * half + first;
        for (int i = 0; i < RUN; i++)
            y[i] = d * float(int((low[i] >> (k / 2 * 4) & 15) | (high[i] >> (2 * k) & 3) << 4) - 32);
    }
};

// Runs `...` with `B` as the block of `format`, or returns NO_SUCH_TYPE.
#define WITH_FORMAT(format, B, ...)                       \
    switch (format) {                                     \
        case Q4_0: { using B = SignedBlock<false>; __VA_ARGS__; break; } \
        case Q4_1: { using B = ShiftedBlock<false>; __VA_ARGS__; break; } \
        case Q5_0: { using B = SignedBlock<true>; __VA_ARGS__; break; } \
        case Q5_1: { using B = ShiftedBlock<true>; __VA_ARGS__; break; } \
        case Q8_0: { using B = ByteBlock; __VA_ARGS__; break; } \
        case Q4_K: { using B = GroupedBlock<false>; __VA_ARGS__; break; } \
        case Q5_K: { using B = GroupedBlock<true>; __VA_ARGS__; break; } \
        case Q6_K: { using B = SixBitBlock; __VA_ARGS__; break; } \
        default: return NO_SUCH_TYPE;                     \
    }

// Dequantizes rows indices[i], or rows i without indices, into `out`.
template <class T, class B>
__global__ void block_rows_kernel(T* out, const uint8_t* blocks, const uint32_t* indices, long long rows, int width) {
    const long long row_bytes = (long long)(width / B::LEN) * B::BYTES;
    for (int run = first_in_row(); run < width / RUN; run += step_in_row()) {
        const int at = run * RUN, in_row = at / B::LEN * B::BYTES;
        for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
            const long long from = indices ? indices[row] : row;
            float y[RUN];
            B::run(blocks + from * row_bytes + in_row, at % B::LEN, y);
            for (int i = 0; i < RUN; i++) out[row * width + at + i] = from_float<T>(y[i]);
        }
    }
}

// Warps per thread block, each computing one output.
constexpr int WARPS = 4;

// y = keep · y + x · Wᵀ + b for at most ROWS rows of x (rows, inputs); a warp multiplies all of them with a row of W.
template <class T, class B, int ROWS>
__global__ void block_product_kernel(T* y, const T* x, const uint8_t* blocks, const float* bias, int rows, int outputs,
                                     int inputs, float keep, bool vectorized) {
    const int output = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (output >= outputs) return;
    const uint8_t* own = blocks + (long long)output * (inputs / B::LEN) * B::BYTES;
    float sums[ROWS] = {};
    for (int at = lane * RUN; at < inputs; at += WARP * RUN) {
        float w[RUN];
        B::run(own + at / B::LEN * B::BYTES, at % B::LEN, w);
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            if (row >= rows) break;
            const T* from = x + (long long)row * inputs + at;
            Pack<T, RUN> pack;
            if (vectorized) pack = load<RUN>(from);
            else
                for (int i = 0; i < RUN; i++) pack.of[i] = from[i];
            for (int i = 0; i < RUN; i++) sums[row] += w[i] * to_float(pack.of[i]);
        }
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        if (row >= rows) break;
        const float sum = warp_sum(sums[row]);
        T* to = y + (long long)row * outputs + output;
        const float was = keep == 0.0f ? 0.0f : keep * to_float(*to);
        if (lane == 0) *to = from_float<T>(was + (sum + (bias ? bias[output] : 0.0f)));
    }
}

extern "C" int er_block_rows(void* out, const void* blocks, const uint32_t* indices, long long rows, int width,
                             int format, int type, void* stream) {
    if (!row_fits(width)) return NO_SUCH_TYPE;
    const dim3 grid = row_grid(rows, width / RUN);
    WITH_TYPE(type, T, WITH_FORMAT(format, B,
        return LAUNCH((block_rows_kernel<T, B>), grid, ROW_THREADS, 0, stream, (T*)out, (const uint8_t*)blocks, indices,
                      rows, width)))
    return NO_SUCH_TYPE;
}

// For 1 to 8 rows; `bias` may be null.
extern "C" int er_block_product(void* y, const void* x, const void* blocks, const float* bias, int rows, int outputs,
                                int inputs, float keep, int format, int type, void* stream) {
    const unsigned grid = unsigned((outputs + WARPS - 1) / WARPS);
    const bool vectorized = vectorizable(addresses(x), inputs, RUN);
    if (rows == 1) {
        WITH_TYPE(type, T, WITH_FORMAT(format, B,
            return LAUNCH((block_product_kernel<T, B, 1>), grid, WARPS * WARP, 0, stream, (T*)y, (const T*)x,
                          (const uint8_t*)blocks, bias, rows, outputs, inputs, keep, vectorized)))
    }
    if (rows > 8) return NO_SUCH_TYPE;
    WITH_TYPE(type, T, WITH_FORMAT(format, B,
        return LAUNCH((block_product_kernel<T, B, 8>), grid, WARPS * WARP, 0, stream, (T*)y, (const T*)x,
                      (const uint8_t*)blocks, bias, rows, outputs, inputs, keep, vectorized)))
    return NO_SUCH_TYPE;
}

// Block formats in ggml's layouts, and their dequantization.
#pragma once

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

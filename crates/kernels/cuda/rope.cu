// Rotary position embedding: cosines and sines of a batch, rotation, and the split of the fused QKV projection.

#include "device.h"

namespace {

// Maximum frequencies per launch: bounded by the size of the kernel arguments.
constexpr int FREQUENCIES = 256;

struct InverseFrequencies { float of[FREQUENCIES]; };

// Which of a token's `count` position ids a pair uses: pairs from `second` on the second, from `third` on the third. If
// interleaved, the ids take turns: `second` pairs for the second, `third` for the third, the others for the first.
struct Axes {
    int count, second, third, interleaved;

    __device__ int of(int pair) const {
        if (count == 1) return 0;
        if (!interleaved) return (pair >= second) + (pair >= third);
        const int turn = pair % 3;
        return turn && pair < 3 * (turn == 1 ? second : third) ? turn : 0;
    }
};

// Cosines and sines of the pairs [first, first + count) of `half`; angles are rounded to f32 as on the CPU.
__global__ void cos_sin_kernel(float* cosines, float* sines, const uint32_t* positions, InverseFrequencies frequencies,
                               Axes axes, long long tokens, int first, int count, int half, float factor) {
    for (int j = first_in_row(); j < count; j += step_in_row()) {
        const int pair = first + j, axis = axes.of(pair);
        const float frequency = frequencies.of[j];
        for (long long token = blockIdx.x; token < tokens; token += gridDim.x) {
            const float angle = float(positions[token * axes.count + axis]) * frequency;
            double sine, cosine;
            sincos(double(angle), &sine, &cosine);
            cosines[token * half + pair] = float(cosine) * factor;
            sines[token * half + pair] = float(sine) * factor;
        }
    }
}

// Rotates the pairs (j, j + half) of each head; cos and sin are (tokens, half).
template <class T>
__global__ void rope_kernel(T* x, const float* cos, const float* sin, long long tokens, int heads, int half, float sign) {
    const int pairs = heads * half;
    for (long long token = blockIdx.x; token < tokens; token += gridDim.x) {
        for (int at = first_in_row(); at < pairs; at += step_in_row()) {
            const int head = at / half, j = at - head * half;
            const float c = cos[token * half + j], s = sign * sin[token * half + j];
            T* const first = x + (token * heads + head) * 2 * half + j;
            const float a = to_float(first[0]), b = to_float(first[half]);
            first[0] = from_float<T>(a * c - b * s);
            first[half] = from_float<T>(b * c + a * s);
        }
    }
}

// Splits the fused QKV projection (rows, (heads + 2 kv_heads) · 2 · half), adds the biases (null: none), and applies
// RoPE to queries and keys; cos and sin are (rows, half).
template <class T, class B>
__global__ void qkv_kernel(T* q, T* k, T* v, const T* fused, const B* q_bias, const B* k_bias, const B* v_bias,
                           const float* cos, const float* sin, long long rows, int heads, int kv_heads, int half) {
    const int all = heads + 2 * kv_heads, dim = 2 * half, pairs = all * half;
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        for (int at = first_in_row(); at < pairs; at += step_in_row()) {
            const int head = at / half, j = at - head * half;
            const bool is_query = head < heads, is_key = !is_query && head < heads + kv_heads;
            const int of_part = is_query ? head : is_key ? head - heads : head - heads - kv_heads;
            const B* const bias = is_query ? q_bias : is_key ? k_bias : v_bias;
            const T* const from = fused + (row * all + head) * dim + j;
            float a = to_float(from[0]), b = to_float(from[half]);
            if (bias) {
                a += to_float(bias[of_part * dim + j]);
                b += to_float(bias[of_part * dim + j + half]);
            }
            if (is_query || is_key) {
                const float c = cos[row * half + j], s = sin[row * half + j], first = a;
                a = first * c - b * s;
                b = b * c + first * s;
            }
            T* const to = (is_query ? q : is_key ? k : v) + (row * (is_query ? heads : kv_heads) + of_part) * dim + j;
            to[0] = from_float<T>(a);
            to[half] = from_float<T>(b);
        }
    }
}

}  // namespace

// `inv_freq` (half) is in host memory, `positions` (tokens, axes) on the device; `second`, `third` and `interleaved` are
// those of `Axes`.
extern "C" int er_cos_sin(float* cos, float* sin, const uint32_t* positions, const float* inv_freq, long long tokens,
                          int half, int axes, int second, int third, int interleaved, float factor, void* stream) {
    for (int first = 0; first < half; first += FREQUENCIES) {
        const int count = min(half - first, FREQUENCIES);
        InverseFrequencies frequencies = {};
        for (int i = 0; i < count; i++) frequencies.of[i] = inv_freq[first + i];
        const int code = LAUNCH(cos_sin_kernel, row_grid(tokens, count), ROW_THREADS, 0, stream, cos, sin, positions,
                                frequencies, (Axes{axes, second, third, interleaved}), tokens, first, count, half, factor);
        if (code) return code;
    }
    return 0;
}

extern "C" int er_rope(void* x, const float* cos, const float* sin, long long tokens, int heads, int half, float sign,
                       int type, void* stream) {
    if (!row_fits((long long)heads * 2 * half)) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((rope_kernel<T>), row_grid(tokens, (long long)heads * half), ROW_THREADS, 0, stream, (T*)x, cos, sin,
                      tokens, heads, half, sign))
    return NO_SUCH_TYPE;
}

extern "C" int er_qkv(void* q, void* k, void* v, const void* fused, const void* q_bias, const void* k_bias,
                      const void* v_bias, const float* cos, const float* sin, long long rows, int heads, int kv_heads,
                      int half, int type, int bias_type, void* stream) {
    const long long all = heads + 2ll * kv_heads;
    if (!row_fits(all * 2 * half)) return NO_SUCH_TYPE;
    WITH_TYPE(type, T, WITH_TYPE(bias_type, B,
        return LAUNCH((qkv_kernel<T, B>), row_grid(rows, all * half), ROW_THREADS, 0, stream, (T*)q, (T*)k, (T*)v,
                      (const T*)fused, (const B*)q_bias, (const B*)k_bias, (const B*)v_bias, cos, sin, rows, heads,
                      kv_heads, half)))
    return NO_SUCH_TYPE;
}

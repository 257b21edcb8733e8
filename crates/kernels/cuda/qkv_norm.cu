// Norms over the heads of queries and keys (Qwen3), with the split of the fused QKV projection and RoPE.

#include "device.h"

namespace {

// Splits the fused QKV projection (rows, (heads + 2 kv_heads) · 2 · half), normalizes each head of queries and keys, and
// applies RoPE to them; cos and sin are (rows, half). A warp takes a head. A normalized element is rounded before it is
// rotated, as by the two kernels that do it apart. Queries and keys before their norms go to `raw_q` and `raw_k` (null:
// they are not needed).
template <class T, class W>
__global__ void qkv_norm_kernel(T* q, T* k, T* v, T* raw_q, T* raw_k, const T* fused, const W* q_norm, const W* k_norm,
                                const float* cos, const float* sin, long long rows, int heads, int kv_heads, int half,
                                float eps) {
    const int all = heads + 2 * kv_heads, dim = 2 * half, lane = threadIdx.x % WARP;
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        for (int head = first_in_row() / WARP; head < all; head += step_in_row() / WARP) {
            const bool is_query = head < heads, is_key = !is_query && head < heads + kv_heads;
            const int of_part = is_query ? head : is_key ? head - heads : head - heads - kv_heads;
            const long long to = (row * (is_query ? heads : kv_heads) + of_part) * dim;
            const T* const from = fused + (row * all + head) * dim;
            if (!is_query && !is_key) {
                for (int at = lane; at < dim; at += WARP) v[to + at] = from[at];
                continue;
            }
            float sum = 0.0f;
            for (int at = lane; at < dim; at += WARP) sum += to_float(from[at]) * to_float(from[at]);
            const float scale = 1.0f / sqrtf(warp_sum(sum) / dim + eps);
            const W* const weight = is_query ? q_norm : k_norm;
            T* const y = (is_query ? q : k) + to;
            T* const raw = is_query ? raw_q : raw_k;
            for (int j = lane; j < half; j += WARP) {
                const T first = from[j], second = from[j + half];
                const float a = to_float(from_float<T>(to_float(first) * scale * to_float(weight[j])));
                const float b = to_float(from_float<T>(to_float(second) * scale * to_float(weight[j + half])));
                const float c = cos[row * half + j], s = sin[row * half + j];
                y[j] = from_float<T>(a * c - b * s);
                y[j + half] = from_float<T>(b * c + a * s);
                if (raw) {
                    raw[to + j] = first;
                    raw[to + j + half] = second;
                }
            }
        }
    }
}

}  // namespace

extern "C" int er_qkv_norm(void* q, void* k, void* v, void* raw_q, void* raw_k, const void* fused, const void* q_norm,
                           const void* k_norm, const float* cos, const float* sin, long long rows, int heads,
                           int kv_heads, int half, float eps, int type, int norm_type, void* stream) {
    const long long all = heads + 2ll * kv_heads;
    if (!row_fits(all * (2 * half > WARP ? 2 * half : WARP))) return NO_SUCH_TYPE;
    WITH_TYPE(type, T, WITH_TYPE(norm_type, W,
        return LAUNCH((qkv_norm_kernel<T, W>), row_grid(rows, all * WARP), ROW_THREADS, 0, stream, (T*)q, (T*)k, (T*)v,
                      (T*)raw_q, (T*)raw_k, (const T*)fused, (const W*)q_norm, (const W*)k_norm, cos, sin, rows, heads,
                      kv_heads, half, eps)))
    return NO_SUCH_TYPE;
}

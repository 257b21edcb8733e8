// Masking, softmax and merging between the dense GEMMs of attention over packed groups. A packed row is one query
// head of one token; rows are ordered (KV head, token, query head of that KV head), so that a KV head's rows are one
// matrix.

#include "device.h"
#include "softmax.h"

namespace {

// Attention mask of a block. Query `i` has position `offset + i` relative to the block's first key; with `causal` it
// attends to keys up to that position, and with `window` > 0 to at most the last `window` of them.
struct Mask {
    int offset;
    int causal;
    int window;

    __device__ int first(int query) const {
        int start = offset + query + 1 - window;
        return window > 0 && start > 0 ? start : 0;
    }

    __device__ int end(int query, int keys) const {
        int end = offset + query + 1;
        if (!causal || end > keys) return keys;
        return end > 0 ? end : 0;
    }
};

// Rows of a block: `queries` tokens with `q_per_kv` query heads for each of `heads` KV heads.
struct Rows {
    int queries;
    int q_per_kv;
    int heads;

    __host__ __device__ long long count() const { return (long long)queries * q_per_kv * heads; }

    // Whether rows are numbered in 32 bits; the blocks of a call have fewer, as their scores are in memory.
    bool fit() const { return row_fits(count()); }
};

// Packs (queries, heads, q_per_kv, dim) into (heads, queries, q_per_kv, dim), or unpacks.
template <class From, class To>
__global__ void attention_pack_kernel(const From* from, To* to, Rows rows, int dim, int unpack) {
    const int inner = rows.q_per_kv * dim, width = rows.heads * inner;
    for (int at = first_in_row(); at < width; at += step_in_row()) {
        const int head = at / inner, within = at - head * inner;
        for (long long query = blockIdx.x; query < rows.queries; query += gridDim.x) {
            const long long plain = query * width + at;
            const long long packed = ((long long)head * rows.queries + query) * inner + within;
            if (unpack) to[plain] = from_float<To>(to_float(from[packed]));
            else to[packed] = from_float<To>(to_float(from[plain]));
        }
    }
}

__global__ void attention_fill_kernel(float* to, long long count, float value) {
    for (long long i = first_item(); i < count; i += item_step()) to[i] = value;
}

// `weights` = e^(score · scale - log-sum-exp) of `scores`, both (heads, queries · q_per_kv, stride); 0 where masked.
// One warp per row; the log-sum-exp has `per_head` rows per head.
template <class T>
__global__ void attention_softmax_kernel(const float* scores, T* weights, float* log_sum_exp, Rows rows, int keys, int stride,
                                  long long per_head, float scale, Mask mask) {
    long long row = first_item() / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= rows.count()) return;
    const int of_head = rows.queries * rows.q_per_kv, head = int(row) / of_head, within = int(row) - head * of_head;
    const int query = within / rows.q_per_kv;
    int first = mask.first(query), end = mask.end(query, keys);
    const float* x = scores + row * stride;
    T* to = weights + row * stride;
    float largest = -INFINITY, sum = 0.0f;
    for (int key = first + lane; key < end; key += WARP) {
        float score = x[key] * scale, above = fmaxf(largest, score);
        sum = sum * expf(largest - above) + expf(score - above);
        largest = above;
    }
    float top = warp_max(largest);
    // If all scores are NaN, so is the sum.
    float total = warp_sum(largest == -INFINITY ? sum : sum * expf(largest - top));
    float shift = top + logf(total);
    for (int key = lane; key < keys; key += WARP) {
        bool visible = key >= first && key < end;
        to[key] = from_float<T>(visible ? expf(x[key] * scale - shift) : 0.0f);
    }
    if (lane == 0) log_sum_exp[head * per_head + within] = first < end ? shift : -INFINITY;
}

// Merges up to two partial results (heads, queries · q_per_kv, dim), each normalized by its own softmax, into `out`
// (queries, heads · q_per_kv · dim) and `log_sum_exp` (queries, heads · q_per_kv). A part with a log-sum-exp of -inf
// is fully masked, and is not read.
template <class T>
__global__ void attention_merge_kernel(const float* first, const float* first_sums, const float* second,
                                const float* second_sums, T* out, float* log_sum_exp, Rows rows, int dim) {
    long long row = first_item() / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= rows.count()) return;
    const int of_head = rows.queries * rows.q_per_kv, head = int(row) / of_head, within = int(row) - head * of_head;
    const int query = within / rows.q_per_kv;
    const long long to = (query * rows.heads + head) * rows.q_per_kv + within % rows.q_per_kv;
    float a = first ? first_sums[row] : -INFINITY, b = second ? second_sums[row] : -INFINITY;
    float top = fmaxf(a, b);
    float of_a = a == -INFINITY ? 0.0f : expf(a - top), of_b = b == -INFINITY ? 0.0f : expf(b - top);
    float sum = of_a + of_b;
    for (int d = lane; d < dim; d += WARP) {
        float value = 0.0f;
        if (of_a != 0.0f) value += of_a / sum * first[row * dim + d];
        if (of_b != 0.0f) value += of_b / sum * second[row * dim + d];
        out[to * dim + d] = from_float<T>(value);
    }
    if (lane == 0) log_sum_exp[to] = top + logf(sum);
}

// Per-row inputs of the backward: the packed output gradient, `delta = rowsum(dO · O)`, and the log-sum-exp.
template <class T>
__global__ void attention_gradient_rows_kernel(const T* d_out, const T* out, const float* log_sum_exp, T* packed, float* delta,
                                        float* packed_sums, Rows rows, int dim) {
    long long row = first_item() / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= rows.count()) return;
    const int of_head = rows.queries * rows.q_per_kv, head = int(row) / of_head, within = int(row) - head * of_head;
    const int query = within / rows.q_per_kv;
    const long long from = (query * rows.heads + head) * rows.q_per_kv + within % rows.q_per_kv;
    float sum = 0.0f;
    for (int d = lane; d < dim; d += WARP) {
        T gradient = d_out[from * dim + d];
        packed[row * dim + d] = gradient;
        sum += to_float(gradient) * to_float(out[from * dim + d]);
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        delta[row] = sum;
        packed_sums[row] = log_sum_exp[from];
    }
}

// From `scores` and the weights' gradients, both (heads, queries · q_per_kv, stride), computes the weights P =
// e^(score · scale - log-sum-exp) and the scores' gradients P · (dP - delta) · scale; 0 where masked.
template <class T>
__global__ void attention_scores_gradient_kernel(const float* scores, const float* d_weights, const float* log_sum_exp,
                                          const float* delta, T* weights, T* d_scores, Rows rows, int keys, int stride,
                                          long long per_head, float scale, Mask mask) {
    long long row = first_item() / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= rows.count()) return;
    const int of_head = rows.queries * rows.q_per_kv, head = int(row) / of_head, within = int(row) - head * of_head;
    const int query = within / rows.q_per_kv;
    int first = mask.first(query), end = mask.end(query, keys);
    float shift = log_sum_exp[head * per_head + within], of_row = delta[head * per_head + within];
    for (int key = lane; key < keys; key += WARP) {
        long long at = row * stride + key;
        bool visible = key >= first && key < end;
        float weight = visible ? expf(scores[at] * scale - shift) : 0.0f;
        float gradient = visible ? weight * (d_weights[at] - of_row) * scale : 0.0f;
        weights[at] = from_float<T>(weight);
        d_scores[at] = from_float<T>(gradient);
    }
}

constexpr int THREADS = 128;

// Thread blocks for one warp per row.
unsigned row_blocks(Rows rows) {
    return unsigned((rows.count() * WARP + THREADS - 1) / THREADS);
}

}  // namespace

extern "C" int er_attention_pack(void* to, const void* from, int queries, int q_per_kv, int heads, int dim, int unpack,
                                 int to_type, int from_type, void* stream) {
    const Rows rows{queries, q_per_kv, heads};
    const long long width = (long long)q_per_kv * heads * dim;
    if (!row_fits(width)) return NO_SUCH_TYPE;
    WITH_TYPE(to_type, To, WITH_TYPE(from_type, From,
        return LAUNCH((attention_pack_kernel<From, To>), row_grid(queries, width), ROW_THREADS, 0, stream,
                      (const From*)from, (To*)to, rows, dim, unpack)))
    return NO_SUCH_TYPE;
}

extern "C" int er_attention_fill(float* to, long long count, float value, void* stream) {
    return LAUNCH(attention_fill_kernel, blocks_for(count, THREADS), THREADS, 0, stream, to, count, value);
}

extern "C" int er_attention_softmax(void* weights, float* log_sum_exp, const float* scores, int queries, int q_per_kv,
                                    int heads, int keys, int stride, long long per_head, float scale, int offset,
                                    int causal, int window, int type, void* stream) {
    const Rows rows{queries, q_per_kv, heads};
    const Mask mask{offset, causal, window};
    if (!rows.fit()) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((attention_softmax_kernel<T>), row_blocks(rows), THREADS, 0, stream, scores, (T*)weights,
                      log_sum_exp, rows, keys, stride, per_head, scale, mask))
    return NO_SUCH_TYPE;
}

extern "C" int er_attention_merge(void* out, float* log_sum_exp, const float* first, const float* first_sums,
                                  const float* second, const float* second_sums, int queries, int q_per_kv, int heads,
                                  int dim, int type, void* stream) {
    const Rows rows{queries, q_per_kv, heads};
    if (!rows.fit()) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((attention_merge_kernel<T>), row_blocks(rows), THREADS, 0, stream, first, first_sums, second,
                      second_sums, (T*)out, log_sum_exp, rows, dim))
    return NO_SUCH_TYPE;
}

extern "C" int er_attention_gradient_rows(void* packed, float* delta, float* packed_sums, const void* d_out,
                                          const void* out, const float* log_sum_exp, int queries, int q_per_kv,
                                          int heads, int dim, int type, void* stream) {
    const Rows rows{queries, q_per_kv, heads};
    if (!rows.fit()) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((attention_gradient_rows_kernel<T>), row_blocks(rows), THREADS, 0, stream, (const T*)d_out,
                      (const T*)out, log_sum_exp, (T*)packed, delta, packed_sums, rows, dim))
    return NO_SUCH_TYPE;
}

extern "C" int er_attention_scores_gradient(void* weights, void* d_scores, const float* scores,
                                            const float* d_weights, const float* log_sum_exp, const float* delta,
                                            int queries, int q_per_kv, int heads, int keys, int stride,
                                            long long per_head, float scale, int offset, int causal, int window,
                                            int type, void* stream) {
    const Rows rows{queries, q_per_kv, heads};
    const Mask mask{offset, causal, window};
    if (!rows.fit()) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((attention_scores_gradient_kernel<T>), row_blocks(rows), THREADS, 0, stream, scores, d_weights,
                      log_sum_exp, delta, (T*)weights, (T*)d_scores, rows, keys, stride, per_head, scale, mask))
    return NO_SUCH_TYPE;
}

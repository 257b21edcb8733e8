// Paged attention for decoding (split-KV): pages, partial results on CUDA cores, and their merge.

#include "paged_attention.h"

#include "softmax.h"

namespace {

constexpr int THREADS = 128;

// Writes keys and values of `rows` tokens (rows, heads · dim) to their slots, page · PAGE_SIZE + offset in the page.
template <class T>
__global__ void paged_store_kernel(T* kv, const T* k, const T* v, const unsigned* slots, Pool pool, int rows,
                                   int dim) {
    const int width = pool.heads * dim;
    for (int at = first_in_row(); at < width; at += step_in_row()) {
        const int head = at / dim, d = at % dim;
        for (int row = blockIdx.x; row < rows; row += gridDim.x) {
            const unsigned slot = slots[row];
            const long long from = (long long)row * width + at;
            const long long token = (long long)(slot % PAGE_SIZE) * pool.padded_dim + d;
            kv[pool.offset(slot / PAGE_SIZE, 0, head) + token] = k[from];
            kv[pool.offset(slot / PAGE_SIZE, 1, head) + token] = v[from];
        }
    }
}

// Copies a page.
template <class T>
__global__ void paged_copy_kernel(T* kv, int from, int to, int page_elements) {
    for (long long i = first_item(); i < page_elements; i += item_step())
        kv[(long long)to * page_elements + i] = kv[(long long)from * page_elements + i];
}

// Gathers the first `tokens` keys and values of a list of pages into (tokens, heads · dim).
template <class T>
__global__ void paged_gather_kernel(T* k, T* v, const T* kv, const unsigned* pages, Pool pool, int tokens,
                                    int dim) {
    const int width = pool.heads * dim;
    for (int at = first_in_row(); at < width; at += step_in_row()) {
        const int head = at / dim, d = at % dim;
        for (int token = blockIdx.x; token < tokens; token += gridDim.x) {
            const long long page = pages[token / PAGE_SIZE], to = (long long)token * width + at;
            const long long from = (long long)(token % PAGE_SIZE) * pool.padded_dim + d;
            k[to] = kv[pool.offset(page, 0, head) + from];
            v[to] = kv[pool.offset(page, 1, head) + from];
        }
    }
}

// Partial results of a work item for up to TILE query heads of a KV head: softmax-weighted values (parts, query
// heads, dim) over the item's pages, and their log-sum-exp (parts, query heads), -inf if fully masked.
//
// Processes KEYS tokens at a time. A thread computes the scores of one token with ROWS query heads, then one column
// of the values for OUT of them.
template <class T, int DIM, int TILE, int KEYS>
__global__ void paged_attention_kernel(float* out, float* log_sum_exp, const T* queries, const T* kv,
                                       const WorkItem* items, const unsigned* page_list, const unsigned* positions,
                                       Pool pool, int dim, int q_per_kv, int per_block, float scale, int window) {
    constexpr int ROWS = TILE * KEYS / THREADS, COLUMNS = THREADS / DIM, OUT = TILE / COLUMNS;
    constexpr int VECTOR = 16 / int(sizeof(T)), STRIDE = DIM + VECTOR;
    static_assert(TILE * KEYS % THREADS == 0 && TILE % COLUMNS == 0 && PAGE_SIZE % KEYS == 0,
                  "the threads do not divide the tile");
    alignas(16) __shared__ T keys[KEYS * STRIDE];
    alignas(16) __shared__ T values[KEYS * STRIDE];
    alignas(16) __shared__ float q[TILE * DIM];
    alignas(16) __shared__ float weights[TILE * KEYS];
    __shared__ float factors[TILE];

    const WorkItem item = items[blockIdx.x];
    const int head_blocks = (q_per_kv + per_block - 1) / per_block;
    const int head = blockIdx.y / head_blocks, first_head = int(blockIdx.y) % head_blocks * per_block;
    const int of_block = min(per_block, q_per_kv - first_head), count = int(item.rows) * of_block;
    const int all_heads = pool.heads * q_per_kv, padded_dim = pool.padded_dim;
    const int token = threadIdx.x % KEYS, first_score = int(threadIdx.x) / KEYS * ROWS;
    const int column = threadIdx.x % DIM, first_out = int(threadIdx.x) / DIM * OUT;

    for (int i = threadIdx.x; i < TILE * DIM; i += THREADS) {
        const int row = i / DIM, d = i % DIM;
        const long long at = (item.first_row + row / of_block) * (long long)all_heads + head * q_per_kv + first_head +
                             row % of_block;
        q[i] = row < count && d < dim ? to_float(queries[at * dim + d]) * scale : 0.0f;
    }
    float largest[ROWS], sums[ROWS], result[OUT];
    int last[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int row = first_score + r;
        largest[r] = -INFINITY;
        sums[r] = 0.0f;
        last[r] = row < count ? int(positions[item.first_row + row / of_block]) : -1;
    }
#pragma unroll
    for (int r = 0; r < OUT; r++) result[r] = 0.0f;
    // Bounds over all rows: their positions need not be in order.
    int last_visible = -1, first_visible = 1 << 30;
    for (int row = 0; row < int(item.rows); row++) {
        const int position = int(positions[item.first_row + row]);
        last_visible = max(last_visible, position);
        first_visible = min(first_visible, window > 0 ? position + 1 - window : 0);
    }

    const int tokens = int(item.pages) * PAGE_SIZE;
    for (int start = 0; start < tokens; start += KEYS) {
        const int position = int(item.position) + start;
        if (position > last_visible || position + KEYS <= first_visible) continue;
        const long long page = page_list[item.first_page + start / PAGE_SIZE];
        const T* from_keys = kv + pool.offset(page, 0, head) + (long long)(start % PAGE_SIZE) * padded_dim;
        const T* from_values = kv + pool.offset(page, 1, head) + (long long)(start % PAGE_SIZE) * padded_dim;
        __syncthreads(); // previous readers are done
        for (int i = threadIdx.x * VECTOR; i < KEYS * padded_dim; i += THREADS * VECTOR) {
            const int to = i / padded_dim * STRIDE + i % padded_dim;
            store(keys + to, load<VECTOR>(from_keys + i));
            // Masked values may be anything, and a weight of 0 times NaN is NaN.
            const bool in_range = position + i / padded_dim <= last_visible;
            store(values + to, in_range ? load<VECTOR>(from_values + i) : Pack<T, VECTOR>{});
        }
        __syncthreads();
        float scores[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) scores[r] = 0.0f;
        for (int d = 0; d < padded_dim; d += VECTOR) {
            const Pack<T, VECTOR> key = load<VECTOR>(keys + token * STRIDE + d);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int i = 0; i < VECTOR; i += 4) {
                    const Pack<float, 4> query = load<4>(q + (first_score + r) * DIM + d + i);
#pragma unroll
                    for (int j = 0; j < 4; j++) scores[r] += query.of[j] * to_float(key.of[i + j]);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int at = position + token;
            const bool visible = at <= last[r] && (window == 0 || at + window > last[r]);
            const float score = visible ? scores[r] : -INFINITY;
            float top = score;
            for (int step = KEYS / 2; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, step));
            top = fmaxf(top, largest[r]);
            const float weight = visible ? expf(score - top) : 0.0f;
            float sum = weight;
            for (int step = KEYS / 2; step > 0; step /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, step);
            const float factor = largest[r] == -INFINITY ? 0.0f : expf(largest[r] - top);
            sums[r] = sums[r] * factor + sum;
            largest[r] = top;
            weights[(first_score + r) * KEYS + token] = weight;
            if (token == 0) factors[first_score + r] = factor;
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < OUT; r++) result[r] *= factors[first_out + r];
        if (column < dim) {
            for (int key = 0; key < KEYS; key += 4) {
                float value[4];
#pragma unroll
                for (int j = 0; j < 4; j++) value[j] = to_float(values[(key + j) * STRIDE + column]);
#pragma unroll
                for (int r = 0; r < OUT; r++) {
                    const Pack<float, 4> weight = load<4>(weights + (first_out + r) * KEYS + key);
#pragma unroll
                    for (int j = 0; j < 4; j++) result[r] += weight.of[j] * value[j];
                }
            }
        }
    }
    __syncthreads(); // the last weights have been read
    if (token == 0) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int row = first_score + r;
            factors[row] = sums[r] == 0.0f ? 0.0f : 1.0f / sums[r];
            if (row >= count) continue;
            const long long to = (item.part + row / of_block) * (long long)all_heads + head * q_per_kv + first_head +
                                 row % of_block;
            log_sum_exp[to] = sums[r] == 0.0f ? -INFINITY : largest[r] + logf(sums[r]);
        }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < OUT; r++) {
        const int row = first_out + r;
        if (row >= count || column >= dim) continue;
        const long long to = (item.part + row / of_block) * (long long)all_heads + head * q_per_kv + first_head +
                             row % of_block;
        out[to * dim + column] = result[r] * factors[row];
    }
}

// Merges each row's partial results, `part_list[part_starts[row]..part_starts[row + 1]]`: sum of e^s · part over sum of
// e^s, where s is a part's log-sum-exp. Rows without any are left unchanged. One block per row and query head.
//
// A thread reads the log-sum-exp of one part; then each warp adds up every fourth part, and the block the warps' sums.
template <class T>
__global__ void __launch_bounds__(THREADS)
    paged_merge_kernel(T* out, float* log_sum_exp, const float* parts, const float* part_sums,
                       const unsigned* part_starts, const unsigned* part_list, int heads, int dim) {
    constexpr int WARPS = THREADS / WARP, COLUMNS = MAX_DIM / WARP;
    static_assert(THREADS >= MAX_DIM, "a thread writes one column");
    __shared__ float weights[THREADS];
    __shared__ long long from[THREADS];
    __shared__ float values[WARPS][MAX_DIM];

    const int row = int(blockIdx.x), head = int(blockIdx.y);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int start = int(part_starts[row]), count = int(part_starts[row + 1]) - start;
    if (count == 0) return;
    float largest = -INFINITY;
    for (int i = threadIdx.x; i < count; i += THREADS)
        largest = fmaxf(largest, part_sums[(long long)part_list[start + i] * heads + head]);
    const float top = block_max(largest);

    float sum = 0.0f, result[COLUMNS] = {};
    for (int first = 0; first < count; first += THREADS) {
        const int i = first + int(threadIdx.x), some = min(THREADS, count - first);
        __syncthreads(); // previous readers are done
        if (i < count) {
            const long long at = (long long)part_list[start + i] * heads + head;
            const float part = part_sums[at];
            weights[threadIdx.x] = part == -INFINITY ? 0.0f : expf(part - top);
            from[threadIdx.x] = at * dim;
            sum += weights[threadIdx.x];
        }
        __syncthreads();
#pragma unroll 4
        for (int part = warp; part < some; part += WARPS) {
            const float weight = weights[part];
            const float* const of = parts + from[part];
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const int d = lane + j * WARP;
                if (d < dim) result[j] = fmaf(weight, of[d], result[j]);
            }
        }
    }
    sum = block_sum(sum);
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) values[warp][lane + j * WARP] = result[j];
    __syncthreads();
    const long long at = (long long)row * heads + head;
    const int d = threadIdx.x;
    if (d < dim) {
        float value = 0.0f;
#pragma unroll
        for (int of = 0; of < WARPS; of++) value += values[of][d];
        out[at * dim + d] = from_float<T>(value / sum);
    }
    if (threadIdx.x == 0) log_sum_exp[at] = top + logf(sum);
}

struct LaunchParams {
    float* out;
    float* log_sum_exp;
    const void* queries;
    const void* kv;
    const void* items;
    const unsigned* page_list;
    const unsigned* positions;
    Pool pool;
    int count, dim, q_per_kv, per_block, window;
    float scale;
    void* stream;
};

template <class T, int DIM, int TILE, int KEYS> int launch(const LaunchParams& c) {
    const int head_blocks = (c.q_per_kv + c.per_block - 1) / c.per_block;
    const dim3 grid(unsigned(c.count), unsigned(c.pool.heads * head_blocks));
    const Pool pool = c.pool;
    float *const out = c.out, *const sums = c.log_sum_exp;
    const unsigned *const pages = c.page_list, *const positions = c.positions;
    const T *const queries = (const T*)c.queries, *const kv = (const T*)c.kv;
    const WorkItem* const items = (const WorkItem*)c.items;
    const int dim = c.dim, q_per_kv = c.q_per_kv, per_block = c.per_block, window = c.window;
    const float scale = c.scale;
    return LAUNCH((paged_attention_kernel<T, DIM, TILE, KEYS>), grid, THREADS, 0, c.stream, out, sums, queries, kv,
                  items, pages, positions, pool, dim, q_per_kv, per_block, scale, window);
}

// KEYS: as many as fit 48 KiB of shared memory.
template <class T, int TILE> int dispatch_dim(const LaunchParams& c) {
    constexpr int KEYS = sizeof(T) == 2 ? 32 : 16;
    if (c.dim <= 32) return launch<T, 32, TILE, KEYS>(c);
    if (c.dim <= 64) return launch<T, 64, TILE, KEYS>(c);
    if (c.dim <= 128) return launch<T, 128, TILE, KEYS>(c);
    return NO_SUCH_TYPE;
}

}  // namespace

extern "C" int er_paged_store(void* kv, const void* k, const void* v, const unsigned* slots, int rows, int heads,
                              int dim, int padded_dim, int type, void* stream) {
    const Pool pool{heads, padded_dim};
    const long long width = (long long)heads * dim;
    if (!row_fits(width)) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((paged_store_kernel<T>), row_grid(rows, width), ROW_THREADS, 0, stream, (T*)kv, (const T*)k,
                      (const T*)v, slots, pool, rows, dim))
    return NO_SUCH_TYPE;
}

extern "C" int er_paged_copy(void* kv, int from, int to, int page_elements, int type, void* stream) {
    WITH_TYPE(type, T,
        return LAUNCH((paged_copy_kernel<T>), blocks_for(page_elements, THREADS), THREADS, 0, stream, (T*)kv, from,
                      to, page_elements))
    return NO_SUCH_TYPE;
}

extern "C" int er_paged_gather(void* k, void* v, const void* kv, const unsigned* pages, int tokens, int heads,
                               int dim, int padded_dim, int type, void* stream) {
    const Pool pool{heads, padded_dim};
    const long long width = (long long)heads * dim;
    if (!row_fits(width)) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((paged_gather_kernel<T>), row_grid(tokens, width), ROW_THREADS, 0, stream, (T*)k, (T*)v,
                      (const T*)kv, pages, pool, tokens, dim))
    return NO_SUCH_TYPE;
}

// `item_heads`: maximum query heads of a work item and a KV head, at most 32. A thread block takes `per_block` of
// `q_per_kv`.
extern "C" int er_paged_attention(float* out, float* log_sum_exp, const void* queries, const void* kv,
                                  const unsigned* items, const unsigned* page_list, const unsigned* positions,
                                  int count, int heads, int dim, int padded_dim, int q_per_kv, int per_block,
                                  int item_heads, float scale, int window, int type, void* stream) {
    const LaunchParams params{out, log_sum_exp, queries, kv, items, page_list, positions, Pool{heads, padded_dim},
                              count, dim, q_per_kv, per_block, window, scale, stream};
    WITH_TYPE(type, T, return item_heads <= 8 ? dispatch_dim<T, 8>(params) : dispatch_dim<T, 32>(params))
    return NO_SUCH_TYPE;
}

extern "C" int er_paged_merge(void* out, float* log_sum_exp, const float* parts, const float* part_sums,
                              const unsigned* part_starts, const unsigned* part_list, int rows, int heads, int dim,
                              int type, void* stream) {
    const dim3 grid(unsigned(rows), unsigned(heads), 1);
    WITH_TYPE(type, T,
        return LAUNCH((paged_merge_kernel<T>), grid, THREADS, 0, stream, (T*)out, log_sum_exp, parts, part_sums,
                      part_starts, part_list, heads, dim))
    return NO_SUCH_TYPE;
}

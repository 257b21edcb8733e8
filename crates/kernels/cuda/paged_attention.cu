// Attention over pages of keys and values, for the few queries of decoding.
//
// A pool holds, for each page, keys then values, for each key head, PAGE tokens of `width` numbers: (pages, 2, heads,
// PAGE, width). `width` is a head's size made a multiple of 8, so that a token begins at a multiple of 16 bytes.

#include "device.h"
#include "softmax.h"

namespace {

constexpr int PAGE = 64;
constexpr int THREADS = 128;

struct Pool {
    int heads;
    int width;

    __device__ long long tokens(long long page, int of_values, int head) const {
        return ((page * 2 + of_values) * heads + head) * PAGE * width;
    }
};

// Puts the keys and values of `rows` tokens (rows, heads · dim) into their slots, page · PAGE + place.
template <class T>
__global__ void paged_store_kernel(T* numbers, const T* k, const T* v, const unsigned* slots, Pool pool, int rows,
                                   int dim) {
    const long long count = (long long)rows * pool.heads * dim;
    for (long long i = first_item(); i < count; i += item_step()) {
        const int d = int(i % dim), head = int(i / dim % pool.heads);
        const unsigned slot = slots[i / dim / pool.heads];
        const long long at = (long long)(slot % PAGE) * pool.width + d;
        numbers[pool.tokens(slot / PAGE, 0, head) + at] = k[i];
        numbers[pool.tokens(slot / PAGE, 1, head) + at] = v[i];
    }
}

// Copies a page of so many numbers over another.
template <class T>
__global__ void paged_copy_kernel(T* numbers, int from, int to, int page_numbers) {
    for (long long i = first_item(); i < page_numbers; i += item_step())
        numbers[(long long)to * page_numbers + i] = numbers[(long long)from * page_numbers + i];
}

// The first `tokens` keys and values of a list of pages, one behind the other (tokens, heads · dim).
template <class T>
__global__ void paged_gather_kernel(T* k, T* v, const T* numbers, const unsigned* pages, Pool pool, int tokens,
                                    int dim) {
    const long long count = (long long)tokens * pool.heads * dim;
    for (long long i = first_item(); i < count; i += item_step()) {
        const int d = int(i % dim), head = int(i / dim % pool.heads);
        const int token = int(i / dim / pool.heads);
        const long long at = (long long)(token % PAGE) * pool.width + d;
        k[i] = numbers[pool.tokens(pages[token / PAGE], 0, head) + at];
        v[i] = numbers[pool.tokens(pages[token / PAGE], 1, head) + at];
    }
}

// Some consecutive queries, and consecutive pages of which each of them may see some tokens.
struct Item {
    unsigned first_row;
    unsigned rows;
    unsigned first_page;  // in the list of pages
    unsigned pages;
    unsigned position;    // of the first page's first token in its sequence
    unsigned part;        // the first of the item's partial results, one a row
};

// Partial results of an item for up to TILE query heads of a key head: means of values (parts, query heads, dim) under
// a softmax over the item's pages alone, and its log-sum-exp (parts, query heads), -inf where nothing is seen.
//
// KEYS tokens are worked on at a time. A thread computes the scores of one token with ROWS of the query heads, then one
// column of the values for OUT of them.
template <class T, int DIM, int TILE, int KEYS>
__global__ void paged_attention_kernel(float* out, float* log_sum_exp, const T* queries, const T* numbers,
                                       const Item* items, const unsigned* page_list, const unsigned* positions,
                                       Pool pool, int dim, int shared, int per_block, float scale, int window) {
    constexpr int ROWS = TILE * KEYS / THREADS, COLUMNS = THREADS / DIM, OUT = TILE / COLUMNS;
    constexpr int VECTOR = 16 / int(sizeof(T)), STRIDE = DIM + VECTOR;
    static_assert(TILE * KEYS % THREADS == 0 && TILE % COLUMNS == 0 && PAGE % KEYS == 0, "threads are left over");
    alignas(16) __shared__ T keys[KEYS * STRIDE];
    alignas(16) __shared__ T values[KEYS * STRIDE];
    alignas(16) __shared__ float q[TILE * DIM];
    alignas(16) __shared__ float weights[TILE * KEYS];
    __shared__ float factors[TILE];

    const Item item = items[blockIdx.x];
    const int blocks = (shared + per_block - 1) / per_block;
    const int head = blockIdx.y / blocks, first_head = int(blockIdx.y) % blocks * per_block;
    const int of_block = min(per_block, shared - first_head), count = int(item.rows) * of_block;
    const int all_heads = pool.heads * shared, width = pool.width;
    const int token = threadIdx.x % KEYS, first_score = int(threadIdx.x) / KEYS * ROWS;
    const int column = threadIdx.x % DIM, first_out = int(threadIdx.x) / DIM * OUT;

    for (int i = threadIdx.x; i < TILE * DIM; i += THREADS) {
        const int row = i / DIM, d = i % DIM;
        const long long at = (item.first_row + row / of_block) * (long long)all_heads + head * shared + first_head +
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
    // What all rows together see: a row after another stands one behind the other, or in another sequence.
    int behind = -1, before = 1 << 30;
    for (int row = 0; row < int(item.rows); row++) {
        const int sees = int(positions[item.first_row + row]);
        behind = max(behind, sees);
        before = min(before, window > 0 ? sees + 1 - window : 0);
    }

    const int tokens = int(item.pages) * PAGE;
    for (int start = 0; start < tokens; start += KEYS) {
        const int position = int(item.position) + start;
        if (position > behind || position + KEYS <= before) continue;
        const long long page = page_list[item.first_page + start / PAGE];
        const T* from_keys = numbers + pool.tokens(page, 0, head) + (long long)(start % PAGE) * width;
        const T* from_values = numbers + pool.tokens(page, 1, head) + (long long)(start % PAGE) * width;
        __syncthreads(); // what was here before has been read
        for (int i = threadIdx.x * VECTOR; i < KEYS * width; i += THREADS * VECTOR) {
            const int to = i / width * STRIDE + i % width;
            store(keys + to, load<VECTOR>(from_keys + i));
            // What nobody sees may be anything, of which a weight of 0 would make NaN.
            const bool there = position + i / width <= behind;
            store(values + to, there ? load<VECTOR>(from_values + i) : Pack<T, VECTOR>{});
        }
        __syncthreads();
        float scores[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) scores[r] = 0.0f;
        for (int d = 0; d < width; d += VECTOR) {
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
            const bool seen = at <= last[r] && (window == 0 || at + window > last[r]);
            const float score = seen ? scores[r] : -INFINITY;
            float top = score;
            for (int step = KEYS / 2; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, step));
            top = fmaxf(top, largest[r]);
            const float weight = seen ? expf(score - top) : 0.0f;
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
            const long long to = (item.part + row / of_block) * (long long)all_heads + head * shared + first_head +
                                 row % of_block;
            log_sum_exp[to] = sums[r] == 0.0f ? -INFINITY : largest[r] + logf(sums[r]);
        }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < OUT; r++) {
        const int row = first_out + r;
        if (row >= count || column >= dim) continue;
        const long long to = (item.part + row / of_block) * (long long)all_heads + head * shared + first_head +
                             row % of_block;
        out[to * dim + column] = result[r] * factors[row];
    }
}

// Each row's partial results as one, in the order of its list, `part_list[part_starts[row]..part_starts[row + 1]]`.
// Rows without one are left as they are. A warp for each of a row's query heads.
template <class T>
__global__ void paged_merge_kernel(T* out, float* log_sum_exp, const float* parts, const float* part_sums,
                                   const unsigned* part_starts, const unsigned* part_list, int rows, int heads,
                                   int dim) {
    const long long at = first_item() / WARP;
    const int lane = threadIdx.x % WARP;
    if (at >= (long long)rows * heads) return;
    const int row = int(at / heads), head = int(at % heads);
    const unsigned start = part_starts[row], end = part_starts[row + 1];
    if (start == end) return;
    float top = -INFINITY;
    for (unsigned i = start; i < end; i++) top = fmaxf(top, part_sums[(long long)part_list[i] * heads + head]);
    float sum = 0.0f;
    for (unsigned i = start; i < end; i++) {
        const float part = part_sums[(long long)part_list[i] * heads + head];
        if (part != -INFINITY) sum += expf(part - top);
    }
    for (int d = lane; d < dim; d += WARP) {
        float value = 0.0f;
        for (unsigned i = start; i < end; i++) {
            const long long from = (long long)part_list[i] * heads + head;
            const float part = part_sums[from];
            if (part != -INFINITY) value += expf(part - top) / sum * parts[from * dim + d];
        }
        out[at * dim + d] = from_float<T>(value);
    }
    if (lane == 0) log_sum_exp[at] = top + logf(sum);
}

struct Call {
    float* out;
    float* log_sum_exp;
    const void* queries;
    const void* numbers;
    const void* items;
    const unsigned* page_list;
    const unsigned* positions;
    Pool pool;
    int count, dim, shared, per_block, window;
    float scale;
    void* stream;
};

template <class T, int DIM, int TILE, int KEYS> int attend(const Call& c) {
    const int blocks = (c.shared + c.per_block - 1) / c.per_block;
    const dim3 grid(unsigned(c.count), unsigned(c.pool.heads * blocks));
    const Pool pool = c.pool;
    float *const out = c.out, *const sums = c.log_sum_exp;
    const unsigned *const pages = c.page_list, *const positions = c.positions;
    const T *const queries = (const T*)c.queries, *const numbers = (const T*)c.numbers;
    const Item* const items = (const Item*)c.items;
    const int dim = c.dim, shared = c.shared, per_block = c.per_block, window = c.window;
    const float scale = c.scale;
    return LAUNCH((paged_attention_kernel<T, DIM, TILE, KEYS>), grid, THREADS, 0, c.stream, out, sums, queries, numbers,
                  items, pages, positions, pool, dim, shared, per_block, scale, window);
}

// Keys at a time: as many as let the block's shared memory stay within 48 KiB.
template <class T, int TILE> int attend_sized(const Call& c) {
    constexpr int KEYS = sizeof(T) == 2 ? 32 : 16;
    if (c.dim <= 32) return attend<T, 32, TILE, KEYS>(c);
    if (c.dim <= 64) return attend<T, 64, TILE, KEYS>(c);
    if (c.dim <= 128) return attend<T, 128, TILE, KEYS>(c);
    return NO_SUCH_TYPE;
}

}  // namespace

extern "C" int er_paged_store(void* numbers, const void* k, const void* v, const unsigned* slots, int rows, int heads,
                              int dim, int width, int type, void* stream) {
    const Pool pool{heads, width};
    const long long count = (long long)rows * heads * dim;
    WITH_TYPE(type, T,
        return LAUNCH((paged_store_kernel<T>), blocks_for(count, THREADS), THREADS, 0, stream, (T*)numbers, (const T*)k,
                      (const T*)v, slots, pool, rows, dim))
    return NO_SUCH_TYPE;
}

extern "C" int er_paged_copy(void* numbers, int from, int to, int page_numbers, int type, void* stream) {
    WITH_TYPE(type, T,
        return LAUNCH((paged_copy_kernel<T>), blocks_for(page_numbers, THREADS), THREADS, 0, stream, (T*)numbers, from,
                      to, page_numbers))
    return NO_SUCH_TYPE;
}

extern "C" int er_paged_gather(void* k, void* v, const void* numbers, const unsigned* pages, int tokens, int heads,
                               int dim, int width, int type, void* stream) {
    const Pool pool{heads, width};
    const long long count = (long long)tokens * heads * dim;
    WITH_TYPE(type, T,
        return LAUNCH((paged_gather_kernel<T>), blocks_for(count, THREADS), THREADS, 0, stream, (T*)k, (T*)v,
                      (const T*)numbers, pages, pool, tokens, dim))
    return NO_SUCH_TYPE;
}

// `tile` query heads at most in an item and a key head: 8 or 32. `per_block` of `shared` go into one block.
extern "C" int er_paged_attention(float* out, float* log_sum_exp, const void* queries, const void* numbers,
                                  const unsigned* items, const unsigned* page_list, const unsigned* positions,
                                  int count, int heads, int dim, int width, int shared, int per_block, int tile,
                                  float scale, int window, int type, void* stream) {
    const Call call{out, log_sum_exp, queries, numbers, items, page_list, positions, Pool{heads, width},
                    count, dim, shared, per_block, window, scale, stream};
    WITH_TYPE(type, T, return tile <= 8 ? attend_sized<T, 8>(call) : attend_sized<T, 32>(call))
    return NO_SUCH_TYPE;
}

extern "C" int er_paged_merge(void* out, float* log_sum_exp, const float* parts, const float* part_sums,
                              const unsigned* part_starts, const unsigned* part_list, int rows, int heads, int dim,
                              int type, void* stream) {
    const long long count = (long long)rows * heads * WARP;
    WITH_TYPE(type, T,
        return LAUNCH((paged_merge_kernel<T>), unsigned((count + THREADS - 1) / THREADS), THREADS, 0, stream, (T*)out,
                      log_sum_exp, parts, part_sums, part_starts, part_list, rows, heads, dim))
    return NO_SUCH_TYPE;
}

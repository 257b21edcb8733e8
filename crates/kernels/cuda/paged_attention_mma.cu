// Paged attention for decoding on tensor cores (split-KV): partial results of work items, for pages in bf16.
//
// The rows of a tile are the query heads of a KV head, for up to 16 pairs of a query and a head. The warps of a tile
// have a slice of each page's tokens each, and merge their results at the end. A row's arithmetic does not depend on
// its place in the tile, on the other rows, or on the number of tiles, so its bits do not depend on the batch. (That an
// mma treats all rows alike is not documented.)

#include "mma.h"
#include "paged_attention.h"

namespace {

constexpr int TILE = 16;       // rows of an mma
constexpr int MAX_TILES = 2;   // of a thread block
constexpr int SLICES = 4;      // warps of a tile
constexpr int SLICE = PAGE_SIZE / SLICES;
constexpr int STAGES = 2;      // pages in shared memory
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

static_assert(SLICE == 16, "a slice's weights are one operand of an mma");

// Shared memory: the pages (STAGES, 2, PAGE_SIZE, STRIDE), then the queries (tiles, TILE, STRIDE). At the end the slices'
// results in f32 (tiles, SLICES, TILE, STRIDE) replace the pages, and their statistics (tiles, SLICES, TILE) the queries.
template <int DIM> struct Layout {
    // 16 bytes longer than a row, so that neighboring rows start in different banks.
    static constexpr int STRIDE = DIM + 8;
    static constexpr int MATRIX = PAGE_SIZE * STRIDE;
    static constexpr int PAGES = STAGES * 2 * MATRIX;

    static constexpr int bytes(int tiles) { return (PAGES + tiles * TILE * STRIDE) * int(sizeof(bf16)); }

    static_assert(MAX_TILES * SLICES * TILE * STRIDE * sizeof(float) <= PAGES * sizeof(bf16), "results are too large");
};

// A slice's largest score, in units of log2, and its sum of weights; then its weight in the merge.
struct Statistics {
    float largest;
    float sum;
};

__device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 2));
}

__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(FULL_WARP, x, 1);
    return x + __shfl_xor_sync(FULL_WARP, x, 2);
}

__device__ inline int warp_max(int x) {
    for (int step = WARP / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(FULL_WARP, x, step));
    return x;
}

// Queries and heads of a thread block.
struct Rows {
    int heads;       // of all KV heads
    int first_head;
    int per_query;
    int count;

    // Index of a row's query head in an array (queries, heads) that starts with the item's query `first`.
    __device__ long long index(unsigned first, int row) const {
        return (long long)(first + row / per_query) * heads + first_head + row % per_query;
    }
};

// Tokens that a row, or some of a block's rows, attend to.
struct Span {
    int first;
    int last;

    __device__ bool contains(int position) const { return first <= position && position <= last; }
};

// Partial results of a work item for the query heads of a KV head: softmax-weighted values (parts, query heads, dim)
// over the item's pages, and their log-sum-exp (parts, query heads), -inf if fully masked. `scale` is log2(e) / sqrt(dim).
template <int DIM>
__global__ void __launch_bounds__(MAX_TILES * SLICES * WARP, 2)
    paged_attention_mma_kernel(float* out, float* log_sum_exp, const bf16* queries, const bf16* kv,
                               const WorkItem* items, const unsigned* page_list, const unsigned* positions, Pool pool,
                               int dim, int q_per_kv, int per_block, float scale, int window, bool aligned) {
    using L = Layout<DIM>;
    constexpr int CHUNKS = DIM / PACK, STEPS = DIM / 16;
    DYNAMIC_SHARED(bf16, pages);
    bf16* const q = pages + L::PAGES;

    const WorkItem item = items[blockIdx.x];
    const int head_blocks = (q_per_kv + per_block - 1) / per_block;
    const int head = blockIdx.y / head_blocks, first_head = int(blockIdx.y) % head_blocks * per_block;
    const int per_query = min(per_block, q_per_kv - first_head);
    const Rows rows{pool.heads * q_per_kv, head * q_per_kv + first_head, per_query, int(item.rows) * per_query};
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int tile = warp / SLICES, slice = warp % SLICES, tiles = int(blockDim.x) / (SLICES * WARP);
    const bool active = tile * TILE < rows.count;

    // Bounds over all rows, of which there are at most 32: their positions need not be in order.
    const bool has_row = lane < int(item.rows);
    const int of_lane = has_row ? int(positions[item.first_row + lane]) : 0;
    const Span block{window > 0 ? -warp_max(has_row ? -of_lane : -(1 << 30)) + 1 - window : 0,
                     warp_max(has_row ? of_lane : -1)};
    const int start = int(item.position), padded_dim = pool.padded_dim;
    const int first = block.first > start ? (block.first - start) / PAGE_SIZE : 0;
    const int end = block.last < start ? 0 : min(int(item.pages), (block.last - start) / PAGE_SIZE + 1);

    // Starts to load a page: keys and values are a group of copies each, which may be empty.
    const auto load_page = [&](int index) {
        const long long page = index < end ? page_list[item.first_page + index] : 0;
        const int chunks = index < end ? PAGE_SIZE * CHUNKS : 0;
#pragma unroll
        for (int is_value = 0; is_value < 2; is_value++) {
            const bf16* const from = kv + pool.offset(page, is_value, head);
            bf16* const to = pages + (index % STAGES * 2 + is_value) * L::MATRIX;
#pragma unroll 4
            for (int i = threadIdx.x; i < chunks; i += blockDim.x) {
                const int token = i / CHUNKS, d = i % CHUNKS * PACK;
                // Masked values may be anything, and a weight of 0 times NaN is NaN.
                if (d < padded_dim && block.contains(start + index * PAGE_SIZE + token))
                    copy_async(to + token * L::STRIDE + d, from + token * padded_dim + d);
                else
                    store(to + token * L::STRIDE + d, Pack<bf16, PACK>{});
            }
            commit_copies();
        }
    };
    for (int stage = 0; stage < STAGES; stage++) load_page(first + stage);

    for (int i = threadIdx.x; i < tiles * TILE * CHUNKS; i += blockDim.x) {
        const int row = i / CHUNKS, d = i % CHUNKS * PACK;
        Pack<bf16, PACK> query{};
        if (row < rows.count) {
            const bf16* const from = queries + rows.index(item.first_row, row) * dim + d;
            if (aligned && d < dim) query = load<PACK>(from);
            for (int j = 0; !aligned && j < min(PACK, dim - d); j++) query.of[j] = from[j];
        }
        store(q + row * L::STRIDE + d, query);
    }

    // A lane has the rows lane / 4 and lane / 4 + 8 of the tile, and columns 2 (lane % 4) and the next of each 8.
    float largest[2] = {-INFINITY, -INFINITY}, sums[2] = {}, result[DIM / 8][4] = {};
    Span visible[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = tile * TILE + lane / 4 + half * 8;
        visible[half].last = row < rows.count ? int(positions[item.first_row + row / per_query]) : -1;
        visible[half].first = window > 0 ? visible[half].last + 1 - window : 0;
    }
    for (int index = first; index < end; index++) {
        const bf16* const keys = pages + index % STAGES * 2 * L::MATRIX + slice * SLICE * L::STRIDE;
        const bf16* const values = keys + L::MATRIX;
        unsigned weights[4];
        wait_for_copies<2 * STAGES - 1>();
        __syncthreads(); // the keys are here, and before the first page the queries
        if (active) {
            float scores[2][4] = {}, factors[2];
#pragma unroll
            for (int k = 0; k < STEPS; k++) {
                // Kept in registers, the queries would halve the blocks of a multiprocessor.
                unsigned query[4], key[4];
                load_matrices(query, q + (tile * TILE + lane % 16) * L::STRIDE + k * 16 + lane / 16 * 8);
                load_matrices(key, keys + (lane / 16 * 8 + lane % 8) * L::STRIDE + k * 16 + lane / 8 % 2 * 8);
                multiply_accumulate(scores[0], query, key[0], key[1]);
                multiply_accumulate(scores[1], query, key[2], key[3]);
            }
            const int token = start + index * PAGE_SIZE + slice * SLICE + lane % 4 * 2;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float top = largest[half], sum = 0.0f;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float& score = scores[i / 2][half * 2 + i % 2];
                    score = visible[half].contains(token + i / 2 * 8 + i % 2) ? score * scale : -INFINITY;
                    top = fmaxf(top, score);
                }
                top = quad_max(top);
                const float base = top == -INFINITY ? 0.0f : top;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float& score = scores[i / 2][half * 2 + i % 2];
                    score = exp2f(score - base);
                    sum += score;
                }
                factors[half] = exp2f(largest[half] - base);
                sums[half] = fmaf(sums[half], factors[half], sum);
                largest[half] = top;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) weights[i] = pack_bf16(scores[i / 2][i % 2 * 2], scores[i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int n = 0; n < DIM / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) result[n][i] *= factors[i / 2];
        }
        wait_for_copies<2 * STAGES - 2>();
        __syncthreads(); // the values are here
        if (active) {
#pragma unroll
            for (int n = 0; n < STEPS; n++) {
                unsigned value[4];
                load_transposed_matrices(value, values + lane % 16 * L::STRIDE + n * 16 + lane / 16 * 8);
                multiply_accumulate(result[2 * n], weights, value[0], value[1]);
                multiply_accumulate(result[2 * n + 1], weights, value[2], value[3]);
            }
        }
        if (index + STAGES < end) __syncthreads(); // the page has been read
        load_page(index + STAGES);
    }

    __syncthreads(); // pages and queries have been read
    float* const results = reinterpret_cast<float*>(pages);
    Statistics* const statistics = reinterpret_cast<Statistics*>(q);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = warp * TILE + lane / 4 + half * 8;
        const float sum = quad_sum(sums[half]);
        if (lane % 4 == 0) statistics[row] = Statistics{largest[half], sum};
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) {
            const Pack<float, 2> pair{{result[n][half * 2], result[n][half * 2 + 1]}};
            store(results + row * L::STRIDE + n * 8 + lane % 4 * 2, pair);
        }
    }
    __syncthreads();
    if (int(threadIdx.x) < rows.count) {
        const int row = threadIdx.x;
        Statistics* const slices = statistics + row / TILE * SLICES * TILE + row % TILE;
        float top = -INFINITY, sum = 0.0f;
        for (int i = 0; i < SLICES; i++) top = fmaxf(top, slices[i * TILE].largest);
        const float base = top == -INFINITY ? 0.0f : top;
        for (int i = 0; i < SLICES; i++) {
            const float weight = exp2f(slices[i * TILE].largest - base);
            sum = fmaf(weight, slices[i * TILE].sum, sum);
            slices[i * TILE].largest = weight;
        }
        for (int i = 0; i < SLICES; i++) slices[i * TILE].largest *= sum == 0.0f ? 0.0f : 1.0f / sum;
        log_sum_exp[rows.index(item.part, row)] = sum == 0.0f ? -INFINITY : (top + log2f(sum)) * LN_2;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows.count * DIM; i += blockDim.x) {
        const int row = i / DIM, d = i % DIM, of = row / TILE * SLICES * TILE + row % TILE;
        if (d >= dim) continue;
        float value = 0.0f;
#pragma unroll
        for (int j = 0; j < SLICES; j++) {
            const int at = of + j * TILE;
            value = fmaf(statistics[at].largest, results[at * L::STRIDE + d], value);
        }
        out[rows.index(item.part, row) * dim + d] = value;
    }
}

struct Launch {
    float* out;
    float* log_sum_exp;
    const bf16* queries;
    const bf16* kv;
    const WorkItem* items;
    const unsigned* page_list;
    const unsigned* positions;
    Pool pool;
    int count, dim, q_per_kv, per_block, tiles, window;
    float scale;
    bool aligned;
    void* stream;
};

template <int DIM> int launch(const Launch& l) {
    const int head_blocks = (l.q_per_kv + l.per_block - 1) / l.per_block, bytes = Layout<DIM>::bytes(l.tiles);
    const dim3 grid(unsigned(l.count), unsigned(l.pool.heads * head_blocks));
    const int error = ALLOW_SHARED(paged_attention_mma_kernel<DIM>);
    if (error != 0) return error;
    return LAUNCH((paged_attention_mma_kernel<DIM>), grid, unsigned(l.tiles * SLICES * WARP), bytes, l.stream, l.out,
                  l.log_sum_exp, l.queries, l.kv, l.items, l.page_list, l.positions, l.pool, l.dim, l.q_per_kv,
                  l.per_block, l.scale, l.window, l.aligned);
}

}  // namespace

// As er_paged_attention, in bf16 only.
extern "C" int er_paged_attention_mma(float* out, float* log_sum_exp, const void* queries, const void* kv,
                                      const unsigned* items, const unsigned* page_list, const unsigned* positions,
                                      int count, int heads, int dim, int padded_dim, int q_per_kv, int per_block,
                                      int item_heads, float scale, int window, int type, void* stream) {
    const Launch l{out, log_sum_exp, (const bf16*)queries, (const bf16*)kv, (const WorkItem*)items, page_list,
                   positions, Pool{heads, padded_dim}, count, dim, q_per_kv, per_block, (item_heads + TILE - 1) / TILE,
                   window, scale * LOG2_E, vectorizable(addresses(queries), dim, PACK), stream};
    if (type != BF16 || l.tiles > MAX_TILES) return NO_SUCH_TYPE;
    if (dim <= 64) return launch<64>(l);
    if (dim <= 96) return launch<96>(l);
    if (dim <= MAX_DIM) return launch<128>(l);
    return NO_SUCH_TYPE;
}

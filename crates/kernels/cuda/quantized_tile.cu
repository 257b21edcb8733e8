// Products of up to 128 rows, as bf16, with block-quantized weights on tensor cores. Tiles of the weight are dequantized in
// shared memory: nothing but the blocks is read from global memory, and nothing is written there.

#include "mma.h"
#include "quantized.h"

namespace {

constexpr int THREADS = 256;

// Outputs of a thread block, and inputs of a step. A step's loads are independent of each other, so that enough of them
// are in flight.
constexpr int OUTPUTS = 32, DEPTH = 256;

// Row stride in shared memory: an odd multiple of 16 bytes, so that the rows of a matrix are in different banks.
constexpr int STRIDE = DEPTH + 8;

constexpr int RUNS = DEPTH / RUN;

// y = keep · y + x · Wᵀ + b for at most 32 · TILES rows of x (rows, inputs), rounded to bf16. A warp computes 16 outputs, the rows of the
// tensor cores' tiles, of 8 · TILES rows of x, their columns.
template <class T, class B, int TILES>
__global__ void block_tile_kernel(T* y, const T* x, const uint8_t* blocks, const float* bias, int rows, int outputs,
                                  int inputs, float keep, bool vectorized) {
    DYNAMIC_SHARED(bf16, tiles);
    bf16 *const weights = tiles, *const inputs_tile = tiles + OUTPUTS * STRIDE;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first_output = blockIdx.x * OUTPUTS, output = warp % 2 * 16, first_row = warp / 2 * 8 * TILES;
    const long long row_bytes = (long long)(inputs / B::LEN) * B::BYTES;
    float sums[TILES][4] = {};
    for (int start = 0; start < inputs; start += DEPTH) {
        __syncthreads(); // the previous tiles have been read
#pragma unroll
        for (int i = threadIdx.x; i < OUTPUTS * RUNS; i += THREADS) {
            const int row = i / RUNS, within = i % RUNS * RUN, at = start + within;
            float values[RUN] = {};
            if (first_output + row < outputs && at < inputs)
                B::run(blocks + (first_output + row) * row_bytes + at / B::LEN * B::BYTES, at % B::LEN, values);
            Pack<bf16, RUN> pack;
            for (int j = 0; j < RUN; j++) pack.of[j] = from_float<bf16>(values[j]);
            store(weights + row * STRIDE + within, pack);
        }
#pragma unroll
        for (int i = threadIdx.x; i < 32 * TILES * RUNS; i += THREADS) {
            const int row = i / RUNS, within = i % RUNS * RUN, at = start + within;
            Pack<bf16, RUN> pack;
            for (int j = 0; j < RUN; j++) pack.of[j] = from_float<bf16>(0.0f);
            if (row < rows && at < inputs) {
                const T* const from = x + (long long)row * inputs + at;
                Pack<T, RUN> given;
                if (vectorized) given = load<RUN>(from);
                else
                    for (int j = 0; j < RUN; j++) given.of[j] = from[j];
                for (int j = 0; j < RUN; j++) pack.of[j] = from_float<bf16>(to_float(given.of[j]));
            }
            store(inputs_tile + row * STRIDE + within, pack);
        }
        __syncthreads();
        if (first_row >= rows) continue;
        for (int k = 0; k < DEPTH; k += 32) {
            unsigned a[2][4];
            const bf16* const of_lane = weights + (output + lane % 16) * STRIDE + k + lane / 16 * 8;
            load_matrices(a[0], of_lane);
            load_matrices(a[1], of_lane + 16);
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                unsigned b[4];
                load_matrices(b, inputs_tile + (first_row + tile * 8 + lane % 8) * STRIDE + k + lane / 8 * 8);
                multiply_accumulate(sums[tile], a[0], b[0], b[1]);
                multiply_accumulate(sums[tile], a[1], b[2], b[3]);
            }
        }
    }
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first_row + tile * 8 + lane % 4 * 2 + i % 2, at = first_output + output + lane / 4 + i / 2 * 8;
            if (row >= rows || at >= outputs) continue;
            T* const to = y + (long long)row * outputs + at;
            const float was = keep == 0.0f ? 0.0f : keep * to_float(*to);
            *to = from_float<T>(was + (sums[tile][i] + (bias ? bias[at] : 0.0f)));
        }
    }
}

template <class T, class B, int TILES>
int launch(T* y, const T* x, const uint8_t* blocks, const float* bias, int rows, int outputs, int inputs, float keep,
           void* stream) {
    const size_t shared = (OUTPUTS + 32 * TILES) * STRIDE * sizeof(bf16);
    const int code = ALLOW_SHARED((block_tile_kernel<T, B, TILES>));
    if (code) return code;
    return LAUNCH((block_tile_kernel<T, B, TILES>), unsigned((outputs + OUTPUTS - 1) / OUTPUTS), THREADS, shared, stream, y,
                  x, blocks, bias, rows, outputs, inputs, keep, vectorizable(addresses(x), inputs, RUN));
}

}  // namespace

// For 1 to 128 rows; `bias` may be null.
extern "C" int er_block_tile(void* y, const void* x, const void* blocks, const float* bias, int rows, int outputs,
                             int inputs, float keep, int format, int type, void* stream) {
    const uint8_t* const w = (const uint8_t*)blocks;
    if (rows < 1 || rows > 128) return NO_SUCH_TYPE;
    WITH_TYPE(type, T, {
        T* const to = (T*)y;
        const T* const from = (const T*)x;
        WITH_FORMAT(format, B, {
            if (rows <= 32) return launch<T, B, 1>(to, from, w, bias, rows, outputs, inputs, keep, stream);
            if (rows <= 64) return launch<T, B, 2>(to, from, w, bias, rows, outputs, inputs, keep, stream);
            return launch<T, B, 4>(to, from, w, bias, rows, outputs, inputs, keep, stream);
        })
    })
    return NO_SUCH_TYPE;
}

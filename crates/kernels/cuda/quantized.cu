// Block-quantized weights: dequantization, and products with few rows.

#include "quantized.h"

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

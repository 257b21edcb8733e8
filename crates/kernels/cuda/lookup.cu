// Gather, scatter-add, and dropout with counter-based masks.

#include "device.h"

// out[i] = table[indices[i]]; one block per row.
template <class To, class From>
__global__ void gather_kernel(To* out, const From* table, const uint32_t* indices, int width) {
    const long long row = blockIdx.x, from = indices[row];
    for (int at = threadIdx.x; at < width; at += blockDim.x)
        out[row * width + at] = from_float<To>(to_float(table[from * width + at]));
}

// Adds rows order[first[e]] … order[first[e + 1] - 1] to row entries[e] of `table`, in this order.
template <class To, class T>
__global__ void scatter_kernel(To* table, const uint32_t* entries, const uint32_t* first, const uint32_t* order,
                               const T* rows, int width) {
    const long long entry = entries[blockIdx.x];
    const uint32_t begin = first[blockIdx.x], end = first[blockIdx.x + 1];
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float sum = to_float(table[entry * width + at]);
        for (uint32_t i = begin; i < end; i++) sum += to_float(rows[(long long)order[i] * width + at]);
        table[entry * width + at] = from_float<To>(sum);
    }
}

// The SplitMix64 finalizer of the counter's next state, as on the CPU.
__device__ inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// y = keep · y + x · scale for kept elements; keys are (rows, 2), lower word first.
template <class T>
__global__ void dropout_kernel(T* y, const T* x, const uint32_t* keys, int width, uint32_t threshold, float scale,
                               float keep) {
    const long long row = blockIdx.x;
    const uint64_t key = keys[2 * row] | (uint64_t)keys[2 * row + 1] << 32;
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        const uint64_t both = mix(key + at / 2);
        const uint32_t bits = at % 2 ? uint32_t(both >> 32) : uint32_t(both);
        const float was = keep == 0.0f ? 0.0f : keep * to_float(y[row * width + at]);
        const float factor = bits < threshold ? 0.0f : scale;
        y[row * width + at] = from_float<T>(was + to_float(x[row * width + at]) * factor);
    }
}

extern "C" int er_gather(void* out, const void* table, const uint32_t* indices, long long rows, int width, int type,
                         int table_type, void* stream) {
    WITH_TYPE(type, T, WITH_TYPE(table_type, F,
        return LAUNCH((gather_kernel<T, F>), unsigned(rows), threads_for(width), 0, stream, (T*)out, (const F*)table,
                      indices, width)))
    return NO_SUCH_TYPE;
}

extern "C" int er_scatter(void* table, const uint32_t* entries, const uint32_t* first, const uint32_t* order,
                          const void* rows, int count, int width, int type, int rows_type,
                          void* stream) {
    WITH_TYPE(type, T, WITH_TYPE(rows_type, F,
        return LAUNCH((scatter_kernel<T, F>), unsigned(count), threads_for(width), 0, stream, (T*)table, entries, first,
                      order, (const F*)rows, width)))
    return NO_SUCH_TYPE;
}

extern "C" int er_dropout(void* y, const void* x, const uint32_t* keys, long long rows, int width, uint32_t threshold,
                          float scale, float keep, int type, void* stream) {
    WITH_TYPE(type, T,
        return LAUNCH((dropout_kernel<T>), unsigned(rows), threads_for(width), 0, stream, (T*)y, (const T*)x, keys,
                      width, threshold, scale, keep))
    return NO_SUCH_TYPE;
}

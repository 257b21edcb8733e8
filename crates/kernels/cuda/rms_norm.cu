// RMSNorm: one block per row.

#include "device.h"

template <class T, class W, int V>
__global__ void rms_norm_kernel(T* y, float* scale, const T* x, const W* weight, int width, float eps) {
    const long long row = blockIdx.x;
    x += row * width;
    y += row * width;
    float sum = 0.0f;
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at);
        for (int i = 0; i < V; i++) sum += to_float(in.of[i]) * to_float(in.of[i]);
    }
    const float s = 1.0f / sqrtf(block_sum(sum) / width + eps);
    if (threadIdx.x == 0) scale[row] = s;
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at);
        const Pack<W, V> w = load<V>(weight + at);
        Pack<T, V> out;
        for (int i = 0; i < V; i++) out.of[i] = from_float<T>(to_float(in.of[i]) * s * to_float(w.of[i]));
        store(y + at, out);
    }
}

// Recomputes y from the saved scale.
template <class T, class W, int V>
__global__ void rms_norm_recompute_kernel(T* y, const T* x, const W* weight, const float* scale, int width) {
    const long long row = blockIdx.x;
    const float s = scale[row];
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + row * width + at);
        const Pack<W, V> w = load<V>(weight + at);
        Pack<T, V> out;
        for (int i = 0; i < V; i++) out.of[i] = from_float<T>(to_float(in.of[i]) * s * to_float(w.of[i]));
        store(y + row * width + at, out);
    }
}

// dx += s g - s³ x mean(g x), with g = dy · weight.
template <class T, class W, int V>
__global__ void rms_norm_backward_kernel(T* dx, const T* x, const W* weight, const float* scale, const T* dy,
                                         int width) {
    const long long row = blockIdx.x;
    x += row * width;
    dy += row * width;
    dx += row * width;
    float sum = 0.0f;
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at), d = load<V>(dy + at);
        const Pack<W, V> w = load<V>(weight + at);
        for (int i = 0; i < V; i++) sum += to_float(d.of[i]) * to_float(w.of[i]) * to_float(in.of[i]);
    }
    const float s = scale[row], shrink = s * s * s * (block_sum(sum) / width);
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at), d = load<V>(dy + at);
        const Pack<W, V> w = load<V>(weight + at);
        Pack<T, V> out = load<V>(dx + at);
        for (int i = 0; i < V; i++) {
            const float more = s * to_float(d.of[i]) * to_float(w.of[i]) - shrink * to_float(in.of[i]);
            out.of[i] = from_float<T>(to_float(out.of[i]) + more);
        }
        store(dx + at, out);
    }
}

// parts[part][column] = Σ dy · x · scale over the part's rows.
template <class T>
__global__ void rms_norm_weight_kernel(float* parts, const T* x, const float* scale, const T* dy, long long rows,
                                       int width, int part_rows) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const long long first = (long long)blockIdx.y * part_rows;
    const long long end = first + part_rows < rows ? first + part_rows : rows;
    float sum = 0.0f;
    for (long long row = first; row < end; row++)
        sum += to_float(dy[row * width + column]) * to_float(x[row * width + column]) * scale[row];
    parts[(long long)blockIdx.y * width + column] = sum;
}

extern "C" int er_rms_norm(void* y, float* scale, const void* x, const void* weight, long long rows, int width,
                           float eps, int type, int weight_type, void* stream) {
    const bool vectorized = vectorizable(addresses(y, x, weight), width, PACK);
    WITH_TYPE(type, T, WITH_TYPE(weight_type, W, WITH_PACKS(vectorized, V,
        return LAUNCH((rms_norm_kernel<T, W, V>), unsigned(rows), threads_for(width / V), 0, stream, (T*)y, scale,
                      (const T*)x, (const W*)weight, width, eps))))
    return NO_SUCH_TYPE;
}

extern "C" int er_rms_norm_recompute(void* y, const void* x, const void* weight, const float* scale, long long rows,
                                 int width, int type, int weight_type, void* stream) {
    const bool vectorized = vectorizable(addresses(y, x, weight), width, PACK);
    WITH_TYPE(type, T, WITH_TYPE(weight_type, W, WITH_PACKS(vectorized, V,
        return LAUNCH((rms_norm_recompute_kernel<T, W, V>), unsigned(rows), threads_for(width / V), 0, stream, (T*)y,
                      (const T*)x, (const W*)weight, scale, width))))
    return NO_SUCH_TYPE;
}

extern "C" int er_rms_norm_backward(void* dx, const void* x, const void* weight, const float* scale, const void* dy,
                                    long long rows, int width, int type, int weight_type, void* stream) {
    const bool vectorized = vectorizable(addresses(dx, x, weight, dy), width, PACK);
    WITH_TYPE(type, T, WITH_TYPE(weight_type, W, WITH_PACKS(vectorized, V,
        return LAUNCH((rms_norm_backward_kernel<T, W, V>), unsigned(rows), threads_for(width / V), 0, stream, (T*)dx,
                      (const T*)x, (const W*)weight, scale, (const T*)dy, width))))
    return NO_SUCH_TYPE;
}

extern "C" int er_rms_norm_weight(float* parts, const void* x, const float* scale, const void* dy, long long rows,
                                  int width, int part_rows, int type, void* stream) {
    const dim3 grid(unsigned((width + 127) / 128), unsigned((rows + part_rows - 1) / part_rows));
    WITH_TYPE(type, T,
        return LAUNCH((rms_norm_weight_kernel<T>), grid, 128, 0, stream, parts, (const T*)x, scale, (const T*)dy, rows,
                      width, part_rows))
    return NO_SUCH_TYPE;
}

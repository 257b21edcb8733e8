// LayerNorm: one block per row.

#include "device.h"

// stats[row] = {mean, 1 / sqrt(variance + eps)}, and the normalized row.
template <class T, class W, int V>
__global__ void layer_norm_kernel(T* y, float* stats, const T* x, const W* weight, const W* bias, int width, float eps) {
    const long long row = blockIdx.x;
    x += row * width;
    y += row * width;
    float sum = 0.0f;
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at);
        for (int i = 0; i < V; i++) sum += to_float(in.of[i]);
    }
    const float mean = block_sum(sum) / width;
    float squares = 0.0f;
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at);
        for (int i = 0; i < V; i++) {
            const float apart = to_float(in.of[i]) - mean;
            squares += apart * apart;
        }
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) / width + eps);
    if (threadIdx.x == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = scale;
    }
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at);
        const Pack<W, V> w = load<V>(weight + at), b = load<V>(bias + at);
        Pack<T, V> out;
        for (int i = 0; i < V; i++)
            out.of[i] = from_float<T>((to_float(in.of[i]) - mean) * scale * to_float(w.of[i]) + to_float(b.of[i]));
        store(y + at, out);
    }
}

// Recomputes y from the saved statistics.
template <class T, class W, int V>
__global__ void layer_norm_recompute_kernel(T* y, const T* x, const W* weight, const W* bias, const float* stats,
                                            int width) {
    const long long row = blockIdx.x;
    const float mean = stats[2 * row], scale = stats[2 * row + 1];
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + row * width + at);
        const Pack<W, V> w = load<V>(weight + at), b = load<V>(bias + at);
        Pack<T, V> out;
        for (int i = 0; i < V; i++)
            out.of[i] = from_float<T>((to_float(in.of[i]) - mean) * scale * to_float(w.of[i]) + to_float(b.of[i]));
        store(y + row * width + at, out);
    }
}

// dx += s (g - mean(g) - x̂ mean(g x̂)), with g = dy · weight and x̂ the normalized row without weight and bias.
template <class T, class W, int V>
__global__ void layer_norm_backward_kernel(T* dx, const T* x, const W* weight, const float* stats, const T* dy,
                                           int width) {
    const long long row = blockIdx.x;
    const float mean = stats[2 * row], scale = stats[2 * row + 1];
    x += row * width;
    dy += row * width;
    dx += row * width;
    float of_all = 0.0f, along = 0.0f;
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at), d = load<V>(dy + at);
        const Pack<W, V> w = load<V>(weight + at);
        for (int i = 0; i < V; i++) {
            const float g = to_float(d.of[i]) * to_float(w.of[i]);
            of_all += g;
            along += g * (to_float(in.of[i]) - mean) * scale;
        }
    }
    of_all = block_sum(of_all) / width;
    along = block_sum(along) / width;
    for (int at = threadIdx.x * V; at < width; at += blockDim.x * V) {
        const Pack<T, V> in = load<V>(x + at), d = load<V>(dy + at);
        const Pack<W, V> w = load<V>(weight + at);
        Pack<T, V> out = load<V>(dx + at);
        for (int i = 0; i < V; i++) {
            const float g = to_float(d.of[i]) * to_float(w.of[i]);
            const float normalized = (to_float(in.of[i]) - mean) * scale;
            out.of[i] = from_float<T>(to_float(out.of[i]) + scale * (g - of_all - normalized * along));
        }
        store(dx + at, out);
    }
}

// parts[part][column] = Σ dy · x̂ over the part's rows.
template <class T>
__global__ void layer_norm_weight_kernel(float* parts, const T* x, const float* stats, const T* dy, long long rows,
                                         int width, int part_rows) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const long long first = (long long)blockIdx.y * part_rows;
    const long long end = first + part_rows < rows ? first + part_rows : rows;
    float sum = 0.0f;
    for (long long row = first; row < end; row++)
        sum += to_float(dy[row * width + column]) * (to_float(x[row * width + column]) - stats[2 * row]) * stats[2 * row + 1];
    parts[(long long)blockIdx.y * width + column] = sum;
}

extern "C" int er_layer_norm(void* y, float* stats, const void* x, const void* weight, const void* bias, long long rows,
                             int width, float eps, int type, int weight_type, void* stream) {
    const bool vectorized = vectorizable(addresses(y, x, weight, bias), width, PACK);
    WITH_TYPE(type, T, WITH_TYPE(weight_type, W, WITH_PACKS(vectorized, V,
        return LAUNCH((layer_norm_kernel<T, W, V>), unsigned(rows), threads_for(width / V), 0, stream, (T*)y, stats,
                      (const T*)x, (const W*)weight, (const W*)bias, width, eps))))
    return NO_SUCH_TYPE;
}

extern "C" int er_layer_norm_recompute(void* y, const void* x, const void* weight, const void* bias, const float* stats,
                                       long long rows, int width, int type, int weight_type, void* stream) {
    const bool vectorized = vectorizable(addresses(y, x, weight, bias), width, PACK);
    WITH_TYPE(type, T, WITH_TYPE(weight_type, W, WITH_PACKS(vectorized, V,
        return LAUNCH((layer_norm_recompute_kernel<T, W, V>), unsigned(rows), threads_for(width / V), 0, stream, (T*)y,
                      (const T*)x, (const W*)weight, (const W*)bias, stats, width))))
    return NO_SUCH_TYPE;
}

extern "C" int er_layer_norm_backward(void* dx, const void* x, const void* weight, const float* stats, const void* dy,
                                      long long rows, int width, int type, int weight_type, void* stream) {
    const bool vectorized = vectorizable(addresses(dx, x, weight, dy), width, PACK);
    WITH_TYPE(type, T, WITH_TYPE(weight_type, W, WITH_PACKS(vectorized, V,
        return LAUNCH((layer_norm_backward_kernel<T, W, V>), unsigned(rows), threads_for(width / V), 0, stream, (T*)dx,
                      (const T*)x, (const W*)weight, stats, (const T*)dy, width))))
    return NO_SUCH_TYPE;
}

extern "C" int er_layer_norm_weight(float* parts, const void* x, const float* stats, const void* dy, long long rows,
                                    int width, int part_rows, int type, void* stream) {
    const dim3 grid(unsigned((width + 127) / 128), unsigned((rows + part_rows - 1) / part_rows));
    WITH_TYPE(type, T,
        return LAUNCH((layer_norm_weight_kernel<T>), grid, 128, 0, stream, parts, (const T*)x, stats, (const T*)dy, rows,
                      width, part_rows))
    return NO_SUCH_TYPE;
}

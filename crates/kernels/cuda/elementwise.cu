// Elementwise operations.

#include "device.h"

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// CDF of the standard normal distribution.
__device__ inline float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }

struct Swiglu {
    template <class T> __device__ static T of(T gate, T up) {
        const float g = to_float(gate);
        return from_float<T>(g * sigmoid(g) * to_float(up));
    }
};

template <class T, int V> __global__ void swiglu_kernel(T* y, const T* gate, const T* up, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        const Pack<T, V> g = load<V>(gate + at * V), u = load<V>(up + at * V);
        Pack<T, V> out;
        for (int i = 0; i < V; i++) out.of[i] = Swiglu::of(g.of[i], u.of[i]);
        store(y + at * V, out);
    }
}

// Replaces gate and up by their gradients.
template <class T, int V> __global__ void swiglu_backward_kernel(T* gate, T* up, const T* dy, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        Pack<T, V> g = load<V>(gate + at * V), u = load<V>(up + at * V);
        const Pack<T, V> d = load<V>(dy + at * V);
        for (int i = 0; i < V; i++) {
            const float x = to_float(g.of[i]), dx = to_float(d.of[i]), s = sigmoid(x);
            g.of[i] = from_float<T>(dx * to_float(u.of[i]) * s * (x * (1.0f - s) + 1.0f));
            u.of[i] = from_float<T>(dx * x * s);
        }
        store(gate + at * V, g);
        store(up + at * V, u);
    }
}

// (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), with u = √(2/π) (x + 0.044715 x³).
__device__ inline float approximate_cdf(float x) {
    return 1.0f / (1.0f + expf(-2.0f * 0.7978846f * x * (1.0f + 0.044715f * x * x)));
}

template <class T, int V> __global__ void gelu_tanh_kernel(T* y, const T* x, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        const Pack<T, V> in = load<V>(x + at * V);
        Pack<T, V> out;
        for (int i = 0; i < V; i++) {
            const float x = to_float(in.of[i]);
            out.of[i] = from_float<T>(x * approximate_cdf(x));
        }
        store(y + at * V, out);
    }
}

// Replaces x by its gradient.
template <class T, int V> __global__ void gelu_tanh_backward_kernel(T* x, const T* dy, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        Pack<T, V> in = load<V>(x + at * V);
        const Pack<T, V> d = load<V>(dy + at * V);
        for (int i = 0; i < V; i++) {
            const float x = to_float(in.of[i]), share = approximate_cdf(x);
            const float slope = 2.0f * 0.7978846f * (1.0f + 3.0f * 0.044715f * x * x);
            in.of[i] = from_float<T>(to_float(d.of[i]) * (x * slope * share * (1.0f - share) + share));
        }
        store(x + at * V, in);
    }
}

template <class T, int V> __global__ void gelu_kernel(T* y, const T* x, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        const Pack<T, V> in = load<V>(x + at * V);
        Pack<T, V> out;
        for (int i = 0; i < V; i++) {
            const float x = to_float(in.of[i]);
            out.of[i] = from_float<T>(x * normal_cdf(x));
        }
        store(y + at * V, out);
    }
}

// Replaces x by its gradient.
template <class T, int V> __global__ void gelu_backward_kernel(T* x, const T* dy, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        Pack<T, V> in = load<V>(x + at * V);
        const Pack<T, V> d = load<V>(dy + at * V);
        for (int i = 0; i < V; i++) {
            const float x = to_float(in.of[i]), density = expf(-0.5f * x * x) * 0.39894228f;
            in.of[i] = from_float<T>(to_float(d.of[i]) * (x * density + normal_cdf(x)));
        }
        store(x + at * V, in);
    }
}

// to = from_share · from + to_share · to.
template <class To, class From, int V>
__global__ void axpby_kernel(To* to, const From* from, float from_share, float to_share, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        const Pack<From, V> f = load<V>(from + at * V);
        Pack<To, V> t = load<V>(to + at * V);
        for (int i = 0; i < V; i++)
            t.of[i] = from_float<To>(from_share * to_float(f.of[i]) + to_share * to_float(t.of[i]));
        store(to + at * V, t);
    }
}

// to = from, converted to to's type.
template <class To, class From, int V> __global__ void convert_kernel(To* to, const From* from, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        const Pack<From, V> f = load<V>(from + at * V);
        Pack<To, V> t;
        for (int i = 0; i < V; i++) t.of[i] = from_float<To>(to_float(f.of[i]));
        store(to + at * V, t);
    }
}

template <class T, int V> __global__ void scale_kernel(T* x, float factor, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        Pack<T, V> in = load<V>(x + at * V);
        for (int i = 0; i < V; i++) in.of[i] = from_float<T>(to_float(in.of[i]) * factor);
        store(x + at * V, in);
    }
}

// Multiplies each row by its factor.
template <class T> __global__ void scale_rows_kernel(T* x, const float* factors, long long rows, int width) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const float factor = factors[row];
        for (int at = first_in_row(); at < width; at += step_in_row())
            x[row * width + at] = from_float<T>(to_float(x[row * width + at]) * factor);
    }
}

// to = keep · to + row, for every row.
template <class To, class From>
__global__ void rows_kernel(To* to, const From* row, long long rows, int width, float keep) {
    for (int at = first_in_row(); at < width; at += step_in_row()) {
        const float added = to_float(row[at]);
        for (long long i = blockIdx.x; i < rows; i += gridDim.x) {
            To* const element = to + i * width + at;
            const float was = keep == 0.0f ? 0.0f : keep * to_float(*element);
            *element = from_float<To>(was + added);
        }
    }
}

// Launches over `count` elements, V at a time.
#define OVER(kernel, count, stream, ...) \
    LAUNCH(kernel, blocks_for((count) / V, 256), 256, 0, stream, __VA_ARGS__, (count) / V)

extern "C" int er_swiglu(void* y, const void* gate, const void* up, long long count, int type, void* stream) {
    WITH_TYPE(type, T, WITH_PACKS(vectorizable(addresses(y, gate, up), count, PACK), V,
        return OVER((swiglu_kernel<T, V>), count, stream, (T*)y, (const T*)gate, (const T*)up)))
    return NO_SUCH_TYPE;
}

extern "C" int er_swiglu_backward(void* gate, void* up, const void* dy, long long count, int type, void* stream) {
    WITH_TYPE(type, T, WITH_PACKS(vectorizable(addresses(gate, up, dy), count, PACK), V,
        return OVER((swiglu_backward_kernel<T, V>), count, stream, (T*)gate, (T*)up, (const T*)dy)))
    return NO_SUCH_TYPE;
}

extern "C" int er_gelu(void* y, const void* x, long long count, int tanh, int type, void* stream) {
    WITH_TYPE(type, T, WITH_PACKS(vectorizable(addresses(y, x), count, PACK), V,
        if (tanh) return OVER((gelu_tanh_kernel<T, V>), count, stream, (T*)y, (const T*)x);
        return OVER((gelu_kernel<T, V>), count, stream, (T*)y, (const T*)x)))
    return NO_SUCH_TYPE;
}

extern "C" int er_gelu_backward(void* x, const void* dy, long long count, int tanh, int type, void* stream) {
    WITH_TYPE(type, T, WITH_PACKS(vectorizable(addresses(x, dy), count, PACK), V,
        if (tanh) return OVER((gelu_tanh_backward_kernel<T, V>), count, stream, (T*)x, (const T*)dy);
        return OVER((gelu_backward_kernel<T, V>), count, stream, (T*)x, (const T*)dy)))
    return NO_SUCH_TYPE;
}

extern "C" int er_axpby(void* to, const void* from, float from_share, float to_share, long long count, int type,
                        int from_type, void* stream) {
    WITH_TYPE(type, T, WITH_TYPE(from_type, F, WITH_PACKS(vectorizable(addresses(to, from), count, PACK), V,
        return LAUNCH((axpby_kernel<T, F, V>), blocks_for(count / V, 256), 256, 0, stream, (T*)to, (const F*)from,
                      from_share, to_share, count / V))))
    return NO_SUCH_TYPE;
}

extern "C" int er_convert(void* to, const void* from, long long count, int type, int from_type, void* stream) {
    WITH_TYPE(type, T, WITH_TYPE(from_type, F, WITH_PACKS(vectorizable(addresses(to, from), count, PACK), V,
        return OVER((convert_kernel<T, F, V>), count, stream, (T*)to, (const F*)from))))
    return NO_SUCH_TYPE;
}

extern "C" int er_scale(void* x, float factor, long long count, int type, void* stream) {
    WITH_TYPE(type, T, WITH_PACKS(vectorizable(addresses(x), count, PACK), V,
        return OVER((scale_kernel<T, V>), count, stream, (T*)x, factor)))
    return NO_SUCH_TYPE;
}

extern "C" int er_scale_rows(void* x, const float* factors, long long rows, int width, int type, void* stream) {
    if (!row_fits(width)) return NO_SUCH_TYPE;
    WITH_TYPE(type, T,
        return LAUNCH((scale_rows_kernel<T>), row_grid(rows, width), ROW_THREADS, 0, stream, (T*)x, factors, rows, width))
    return NO_SUCH_TYPE;
}

extern "C" int er_rows(void* to, const void* row, long long rows, int width, float keep, int type, int row_type,
                       void* stream) {
    if (!row_fits(width)) return NO_SUCH_TYPE;
    WITH_TYPE(type, T, WITH_TYPE(row_type, F,
        return LAUNCH((rows_kernel<T, F>), row_grid(rows, width), ROW_THREADS, 0, stream, (T*)to, (const F*)row, rows,
                      width, keep)))
    return NO_SUCH_TYPE;
}

// Optimizer steps on flat buffers, and the gradient norm.

#include "device.h"

struct AdamwFactors { float rate, root, keep, beta1, beta2, eps, scale; };

template <class G, int V>
__global__ void adamw_kernel(float* param, float* m, float* v, const G* grad, AdamwFactors f, long long packs) {
    for (long long at = first_item(); at < packs; at += item_step()) {
        Pack<float, V> p = load<V>(param + at * V), a = load<V>(m + at * V), b = load<V>(v + at * V);
        const Pack<G, V> gradient = load<V>(grad + at * V);
        for (int i = 0; i < V; i++) {
            const float g = to_float(gradient.of[i]) * f.scale;
            a.of[i] = fmaf(f.beta1, a.of[i], (1.0f - f.beta1) * g);
            b.of[i] = fmaf(f.beta2, b.of[i], (1.0f - f.beta2) * g * g);
            p.of[i] = f.keep * p.of[i] - f.rate * a.of[i] / fmaf(sqrtf(b.of[i]), f.root, f.eps);
        }
        store(param + at * V, p);
        store(m + at * V, a);
        store(v + at * V, b);
    }
}

// Momentum update, and the Nesterov direction.
template <class G>
__global__ void momentum_kernel(float* momentum, float* direction, const G* grad, float keep, float scale,
                                long long count) {
    for (long long at = first_item(); at < count; at += item_step()) {
        const float share = (1.0f - keep) * (to_float(grad[at]) * scale);
        const float m = keep * momentum[at] + share;
        momentum[at] = m;
        direction[at] = keep * m + share;
    }
}

constexpr int SQUARES = 4096;

// parts[i] = sum of squares of the i-th 4096 elements.
template <class T> __global__ void squares_kernel(float* parts, const T* x, long long count) {
    const long long first = (long long)blockIdx.x * SQUARES;
    const long long end = first + SQUARES < count ? first + SQUARES : count;
    float sum = 0.0f;
    for (long long at = first + threadIdx.x; at < end; at += blockDim.x) sum += to_float(x[at]) * to_float(x[at]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// Sum of all parts in double precision, by one block.
__global__ void total_kernel(double* total, const float* parts, long long count) {
    __shared__ double sums[256];
    double sum = 0.0;
    for (long long at = threadIdx.x; at < count; at += blockDim.x) sum += parts[at];
    sums[threadIdx.x] = sum;
    for (int step = 128; step > 0; step /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < step) sums[threadIdx.x] += sums[threadIdx.x + step];
    }
    if (threadIdx.x == 0) *total = sums[0];
}

extern "C" int er_adamw(float* param, float* m, float* v, const void* grad, const float* factors, long long count,
                        int type, void* stream) {
    const AdamwFactors f = {factors[0], factors[1], factors[2], factors[3], factors[4], factors[5], factors[6]};
    WITH_TYPE(type, G, WITH_PACKS(vectorizable(addresses(param, m, v, grad), count, PACK), V,
        return LAUNCH((adamw_kernel<G, V>), blocks_for(count / V, 256), 256, 0, stream, param, m, v, (const G*)grad,
                      f, count / V)))
    return NO_SUCH_TYPE;
}

extern "C" int er_momentum(float* momentum, float* direction, const void* grad, float keep, float scale,
                           long long count, int type, void* stream) {
    WITH_TYPE(type, G,
        return LAUNCH((momentum_kernel<G>), blocks_for(count, 256), 256, 0, stream, momentum, direction,
                      (const G*)grad, keep, scale, count))
    return NO_SUCH_TYPE;
}

extern "C" int er_squares(float* parts, const void* x, long long count, int type, void* stream) {
    WITH_TYPE(type, T,
        return LAUNCH((squares_kernel<T>), unsigned((count + SQUARES - 1) / SQUARES), 256, 0, stream, parts,
                      (const T*)x, count))
    return NO_SUCH_TYPE;
}

extern "C" int er_total(double* total, const float* parts, long long count, void* stream) {
    return LAUNCH(total_kernel, 1, 256, 0, stream, total, parts, count);
}

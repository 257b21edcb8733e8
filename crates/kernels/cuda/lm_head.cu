// Log-probabilities and entropies of rows of logits, and the gradient of the logits: one block per row.

#include "device.h"
#include "softmax.h"

namespace {

constexpr int THREADS = 512;

// out[row] = (log-probability of the target, entropy, log-sum-exp) of softmax(logits[row] · scale).
__global__ void lm_head_score_kernel(const float* logits, const unsigned* targets, float* out, int vocabulary,
                                     float scale) {
    const long long row = blockIdx.x;
    const float* x = logits + row * vocabulary;
    float top = -INFINITY;
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) top = fmaxf(top, x[i] * scale);
    top = block_max(top);
    float sum = 0.0f, weighted = 0.0f;
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        const float y = x[i] * scale - top, e = expf(y);
        sum += e;
        weighted += e * y;
    }
    sum = block_sum(sum);
    weighted = block_sum(weighted);
    if (threadIdx.x == 0) {
        const float log_sum = logf(sum);
        out[row * 3] = x[targets[row]] * scale - top - log_sum;
        out[row * 3 + 1] = log_sum - weighted / sum;
        out[row * 3 + 2] = top + log_sum;
    }
}

// d_logits = d_logp · scale · (one-hot(target) - e^(logit · scale - log-sum-exp)); in f32 may overwrite the logits.
template <class T>
__global__ void lm_head_gradient_kernel(const float* logits, const unsigned* targets, const float* log_sum_exp,
                                        const float* d_logps, T* d_logits, int vocabulary, float scale) {
    const long long row = blockIdx.y;
    const float d = d_logps[row] * scale, shift = log_sum_exp[row];
    const int target = int(targets[row]);
    for (int i = int(first_item()); i < vocabulary; i += int(item_step())) {
        const long long at = row * vocabulary + i;
        const float x = -d * expf(logits[at] * scale - shift);
        d_logits[at] = from_float<T>(i == target ? x + d : x);
    }
}

}  // namespace

extern "C" int er_lm_head_score(float* out, const float* logits, const unsigned* targets, int rows, int vocabulary,
                                float scale, void* stream) {
    return LAUNCH(lm_head_score_kernel, unsigned(rows), threads_for(vocabulary, THREADS), 0, stream, logits, targets,
                  out, vocabulary, scale);
}

extern "C" int er_lm_head_gradient(void* d_logits, const float* logits, const unsigned* targets,
                                   const float* log_sum_exp, const float* d_logps, int rows, int vocabulary,
                                   float scale, int type, void* stream) {
    const int threads = threads_for(vocabulary);
    const dim3 grid(blocks_for(vocabulary, threads * 8), unsigned(rows));
    WITH_TYPE(type, T,
        return LAUNCH((lm_head_gradient_kernel<T>), grid, threads, 0, stream, logits, targets, log_sum_exp, d_logps,
                      (T*)d_logits, vocabulary, scale))
    return NO_SUCH_TYPE;
}

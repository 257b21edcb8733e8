// Sampling from rows of logits as `sample::Scan` on the host: the same chunks, lanes, summation orders and
// exponential, so that equal inputs give equal draws. `__fmul_rn` keeps nvcc from contracting products and sums into
// FMAs.
#pragma once

#include "device.h"
#include "softmax.h"

#ifdef EMBODIED_R_HOST
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
#endif

namespace sampling {

typedef unsigned long long u64;

constexpr int CHUNK = 256;
constexpr int LANES = 16;
constexpr int THREADS = 256;
constexpr int GROUP = 16;
constexpr unsigned NONE = 0xffffffffu;

// A row of logits with its scale.
struct View {
    unsigned row;
    unsigned edited; // whether it is one of the edited rows
    float scale;
};

// A sampling request. f64 values are two words, lower first.
struct Request {
    unsigned raw;  // view for log-probabilities
    unsigned view; // view to sample from
    unsigned first_draw, draws;
    unsigned greedy;
    unsigned top_k;
    unsigned top_p[2];
    unsigned min_p[2]; // ln(min-p) / scale; -inf is off
};

// The last entry kept, in order of descending logit, then index.
struct Cutoff {
    float logit;
    unsigned index;

    __device__ bool keeps(unsigned at, float x) const { return x > logit || (x == logit && at <= index); }
};

// Truncation of a request.
struct Truncation {
    Cutoff cutoff;
    float top;          // largest logit of the view
    unsigned searching; // whether a cutoff is being searched
    unsigned prefix;    // leading digits of its key
    unsigned unused;
    u64 target;         // what the entries from there on have to reach
};

// Result of one draw.
struct SampledToken {
    unsigned index;    // NONE if no entry is left
    float logit;       // of the raw view
    float top;         // largest logit of the raw view
    unsigned total[2]; // sum of the raw view's weights, f64
};

__device__ inline double to_f64(const unsigned* words) {
    const u64 bits = words[0] | u64(words[1]) << 32;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// `math::exp`, bit-identical.
__device__ inline float exact_exp(float x) {
    x = fminf(fmaxf(x, -87.0f), 88.0f);
    const float round = 12582912.0f, shifted = fmaf(x, 1.44269504088896340736f, round), n = shifted - round;
    const float r = fmaf(n, 2.1219444e-4f, fmaf(n, -0.6933594f, x));
    float p = 1.9875691e-4f;
    p = fmaf(p, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666665e-1f);
    p = fmaf(p, r, 5e-1f);
    p = fmaf(p, __fmul_rn(r, r), r) + 1.0f;
    return __fmul_rn(p, __uint_as_float((__float_as_uint(shifted) << 23) + (127u << 23)));
}

__device__ inline float weight(float y) { return y > -87.0f ? exact_exp(y) : 0.0f; }

// Order-preserving integer key.
__device__ inline unsigned key_of(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ inline float of_key(unsigned key) { return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key); }

__device__ inline const float* row_of(const View& view, const float* logits, const float* edited, int vocabulary) {
    return (view.edited ? edited : logits) + (long long)view.row * vocabulary;
}

// Sum over a chunk's lanes, in order; 16 neighboring threads hold one lane each.
__device__ inline float lane_sum(float x) {
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++) sum += __shfl_sync(FULL_WARP, x, lane, LANES);
    return sum;
}

// A view with its largest logit.
struct Scan {
    const float* x;
    const float* maxima;
    int vocabulary, chunks;
    float scale, top;

    __device__ float relative(float logit) const { return weight((logit - top) * scale); }
};

// The logits of a batch and the statistics of their views.
struct Batch {
    const float* logits;
    const float* edited;
    const float* maxima;
    const float* masses;
    const View* views;
    const Request* requests;
    int vocabulary, chunks;

    __device__ Scan scan(unsigned view, float top) const {
        return Scan{row_of(views[view], logits, edited, vocabulary), maxima + (long long)view * chunks, vocabulary,
                    chunks, views[view].scale, top};
    }

    __device__ const float* masses_of(unsigned view) const { return masses + (long long)view * chunks; }
};

// Largest logit of a view, by one block.
__device__ inline float top_of(const Batch& batch, unsigned view) {
    const float* const maxima = batch.maxima + (long long)view * batch.chunks;
    float top = -INFINITY;
    for (int i = threadIdx.x; i < batch.chunks; i += THREADS) top = fmaxf(top, maxima[i]);
    return block_max(top);
}

// A chunk's mass relative to the row's largest logit.
__device__ inline float relative_mass(const Scan& scan, const float* masses, int chunk) {
    return __fmul_rn(masses[chunk], scan.relative(scan.maxima[chunk]));
}

// The masses (2, chunks) of a request: of all entries of the raw view, and of those that are kept.
__device__ inline float* raw_masses(float* work, int chunks) { return work + (long long)blockIdx.x * 2 * chunks; }

// Sums of weights in two levels, as `sums.rs`: of groups of 16, then of the groups.

inline size_t group_bytes(int count) { return size_t((count + GROUP - 1) / GROUP) * sizeof(double); }

// The sums of the groups of `weights`, and their sum, by one block; returned to all threads.
__device__ inline double grouped_total(const float* weights, int count, double* groups) {
    __shared__ double total;
    const int all = (count + GROUP - 1) / GROUP;
    __syncthreads(); // the weights are there, and previous readers are done
    for (int group = threadIdx.x; group < all; group += THREADS) {
        double sum = 0.0;
        for (int i = group * GROUP; i < min(count, (group + 1) * GROUP); i++) sum += double(weights[i]);
        groups[group] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (int group = 0; group < all; group++) sum += groups[group];
        total = sum;
    }
    __syncthreads();
    return total;
}

struct Position {
    int index; // -1 if there is no weight
    double before;
};

// The first weight at which the cumulative sum exceeds `target`, and the sum before it; by one thread.
__device__ inline Position position(const float* weights, int count, const double* groups, double target) {
    int group = -1;
    double before = 0.0, sum = 0.0;
    for (int i = 0; i < (count + GROUP - 1) / GROUP; i++) {
        if (!(groups[i] > 0.0)) continue;
        group = i, before = sum;
        if (before + groups[i] > target) break;
        sum += groups[i];
    }
    Position found{-1, 0.0};
    if (group < 0) return found;
    for (int i = group * GROUP; i < min(count, (group + 1) * GROUP); i++) {
        if (!(weights[i] > 0.0f)) continue;
        found = Position{i, before};
        before += double(weights[i]);
        if (before > target) break;
    }
    return found;
}

}  // namespace sampling

// Sampling from rows of logits as `sample::Scan` on the host: the same chunks, lanes, summation orders and
// exponential, so that equal inputs give equal draws. `__fmul_rn` keeps nvcc from contracting products and sums into
// FMAs.
//
// Only the nucleus sums in another order, in fixed point with 44 fractional bits, where the order of additions does
// not matter.

#include "device.h"
#include "softmax.h"

#ifdef EMBODIED_R_HOST
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }
#endif

namespace {

typedef unsigned long long u64;

constexpr int CHUNK = 256;
constexpr int LANES = 16;
constexpr int THREADS = 256;
constexpr int DIGITS = 256;
constexpr unsigned NONE = 0xffffffffu;
constexpr double FIXED = 17592186044416.0; // 2^44

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

// Result of one draw.
struct SampledToken {
    unsigned index;    // NONE if no entry is left
    float logit;       // of the raw view
    float top;         // largest logit of the raw view
    unsigned total[2]; // sum of the raw view's weights, f64
};

// The last entry kept, in order of descending logit, then index.
struct Cutoff {
    float logit;
    unsigned index;

    __device__ bool keeps(unsigned at, float x) const { return x > logit || (x == logit && at <= index); }
};

__device__ double to_f64(const unsigned* words) {
    const u64 bits = words[0] | u64(words[1]) << 32;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// `math::exp`, bit-identical.
__device__ float exact_exp(float x) {
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

__device__ float weight(float y) { return y > -87.0f ? exact_exp(y) : 0.0f; }

// Order-preserving integer key.
__device__ unsigned key_of(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ float of_key(unsigned key) { return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key); }

__device__ const float* row_of(const View& view, const float* logits, const float* edited, int vocabulary) {
    return (view.edited ? edited : logits) + (long long)view.row * vocabulary;
}

// Sum over a chunk's lanes, in order; 16 neighboring threads hold one lane each.
__device__ float lane_sum(float x) {
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++) sum += __shfl_sync(FULL_WARP, x, lane, LANES);
    return sum;
}

// edited[row] = logits[source], or -inf if only some tokens are allowed.
__global__ void sample_copy_kernel(float* edited, const float* logits, const unsigned* sources, const unsigned* only,
                                   int vocabulary) {
    const long long row = blockIdx.y;
    const float* from = logits + (long long)sources[row] * vocabulary;
    for (long long i = first_item(); i < vocabulary; i += item_step())
        edited[row * vocabulary + i] = only[row] ? -INFINITY : from[i];
}

enum Change { ALLOW = 0, BAN = 1, BIAS = 2, REPETITION_PENALTY = 3 };

// Edits single logits. An edit (row, id, first change, end) applies its changes in order.
__global__ void sample_edit_kernel(float* edited, const float* logits, const unsigned* sources, const unsigned* edits,
                                   const unsigned* changes, const float* values, int count, int vocabulary) {
    for (long long i = first_item(); i < count; i += item_step()) {
        const unsigned *edit = edits + i * 4, row = edit[0], id = edit[1];
        float x = edited[(long long)row * vocabulary + id];
        for (unsigned at = edit[2]; at < edit[3]; at++) {
            const float value = values[at];
            switch (changes[at]) {
                case ALLOW: x = logits[(long long)sources[row] * vocabulary + id]; break;
                case BAN: x = -INFINITY; break;
                case BIAS: x += value; break;
                case REPETITION_PENALTY: x = x > 0.0f ? x / value : x * value; break;
            }
        }
        edited[(long long)row * vocabulary + id] = x;
    }
}

// Largest logit of each chunk, and the sum of weights relative to it: 16 threads per chunk.
__global__ void sample_scan_kernel(float* maxima, float* masses, const float* logits, const float* edited,
                                   const View* views, int vocabulary, int chunks) {
    const View view = views[blockIdx.y];
    const int chunk = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const bool active = chunk < chunks;
    const float* x = row_of(view, logits, edited, vocabulary) + (long long)chunk * CHUNK;
    const int len = active ? min(CHUNK, vocabulary - chunk * CHUNK) : 0, full = len / LANES * LANES;
    float largest = -INFINITY;
    for (int i = lane; i < len; i += LANES) largest = fmaxf(largest, x[i]);
    for (int step = LANES / 2; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, step));
    float sum = 0.0f;
    for (int i = lane; i < full; i += LANES) sum += weight((x[i] - largest) * view.scale);
    const float rest = full + lane < len ? weight((x[full + lane] - largest) * view.scale) : 0.0f;
    const float mass = lane_sum(sum) + lane_sum(rest);
    if (active && lane == 0) {
        maxima[(long long)blockIdx.y * chunks + chunk] = largest;
        masses[(long long)blockIdx.y * chunks + chunk] = mass;
    }
}

// A view with its scan statistics, for one block.
struct Scan {
    const float* x;
    const float* maxima;
    int vocabulary, chunks;
    float scale, top;
};

__device__ Scan scan_of(const View& view, unsigned index, const float* logits, const float* edited,
                        const float* maxima, int vocabulary, int chunks) {
    Scan scan{row_of(view, logits, edited, vocabulary), maxima + (long long)index * chunks, vocabulary, chunks,
              view.scale, -INFINITY};
    float top = -INFINITY;
    for (int i = threadIdx.x; i < chunks; i += THREADS) top = fmaxf(top, scan.maxima[i]);
    scan.top = block_max(top);
    return scan;
}

// Sum of the masses, in order; returned to all threads.
__device__ double total_of(const float* masses, int chunks) {
    __shared__ double total;
    __syncthreads();
    if (threadIdx.x == 0) {
        double sum = 0.0;
        for (int i = 0; i < chunks; i++) sum += double(masses[i]);
        total = sum;
    }
    __syncthreads();
    return total;
}

// Chunks' masses relative to the row's largest logit.
__device__ void relative_masses(const Scan& scan, const float* masses, float* out) {
    for (int i = threadIdx.x; i < scan.chunks; i += THREADS)
        out[i] = __fmul_rn(masses[i], weight((scan.maxima[i] - scan.top) * scan.scale));
}

// Chunks' masses after truncation: 16 threads per chunk.
__device__ void truncated_masses(const Scan& scan, Cutoff cutoff, float* out) {
    const int lane = threadIdx.x % LANES;
    for (int first = 0; first < scan.chunks; first += THREADS / LANES) {
        const int chunk = first + int(threadIdx.x) / LANES;
        const bool active = chunk < scan.chunks && !(scan.maxima[chunk] < cutoff.logit);
        const int start = chunk * CHUNK, len = active ? min(CHUNK, scan.vocabulary - start) : 0;
        float sum = 0.0f;
        for (int i = lane; i < len; i += LANES) {
            const float x = scan.x[start + i], w = weight((x - scan.top) * scan.scale);
            sum += cutoff.keeps(unsigned(start + i), x) ? w : 0.0f;
        }
        const float mass = lane_sum(sum);
        if (chunk < scan.chunks && lane == 0) out[chunk] = mass;
    }
}

// Argmax of the row, the first of ties; NONE if there is none.
__device__ unsigned largest_of(const Scan& scan) {
    __shared__ unsigned found;
    __syncthreads();
    if (threadIdx.x == 0) found = NONE;
    __syncthreads();
    if (scan.top > -INFINITY)
        for (int i = threadIdx.x; i < scan.vocabulary; i += THREADS)
            if (scan.x[i] == scan.top) {
                atomicMin(&found, unsigned(i));
                break;
            }
    __syncthreads();
    return found;
}

// What an entry counts: one, or its weight in fixed point.
enum class Counting { Ones, Weights };

__device__ u64 count_of(const Scan& scan, Counting counting, float x) {
    return counting == Counting::Ones ? 1 : u64(double(weight((x - scan.top) * scan.scale)) * FIXED);
}

struct Selected {
    bool found;
    unsigned key;
    u64 target;    // remaining target among the entries with this key
    u64 available; // their total
};

// Radix select: the entry at which the running count over the entries of `kept`, in descending order, reaches
// `target`.
__device__ Selected select(const Scan& scan, Cutoff kept, Counting counting, u64 target) {
    __shared__ u64 sums[DIGITS];
    __shared__ Selected at;
    unsigned prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        for (int i = threadIdx.x; i < DIGITS; i += THREADS) sums[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < scan.vocabulary; i += THREADS) {
            const float x = scan.x[i];
            const unsigned key = key_of(x);
            const bool same = shift == 24 || key >> (shift + 8) == prefix;
            if (same && kept.keeps(unsigned(i), x)) {
                const u64 count = count_of(scan, counting, x);
                if (count > 0) atomicAdd(&sums[key >> shift & 255u], count);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = DIGITS - 1;
            while (digit >= 0 && sums[digit] < target) target -= sums[digit--];
            at.found = digit >= 0;
            if (digit >= 0) at = Selected{true, prefix << 8 | unsigned(digit), target, sums[digit]};
        }
        __syncthreads();
        if (!at.found) return at;
        prefix = at.key;
        target = at.target;
    }
    return at;
}

// Index of the `target`-th entry (from 1) with this key: each warp searches a part of the row.
__device__ unsigned nth_equal(const Scan& scan, unsigned key, u64 target) {
    constexpr int WARPS = THREADS / WARP;
    __shared__ unsigned counts[WARPS];
    __shared__ unsigned found;
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int part = (scan.vocabulary + WARPS - 1) / WARPS, first = warp * part;
    const int end = min(first + part, scan.vocabulary);
    unsigned count = 0;
    for (int i = first; i < end; i += WARP)
        count += __popc(__ballot_sync(FULL_WARP, i + lane < end && key_of(scan.x[i + lane]) == key));
    __syncthreads();
    if (lane == 0) counts[warp] = count;
    if (threadIdx.x == 0) found = NONE;
    __syncthreads();
    u64 before = 0;
    for (int i = 0; i < warp; i++) before += counts[i];
    if (before < target && target <= before + count) {
        for (int i = first; i < end; i += WARP) {
            const bool equal = i + lane < end && key_of(scan.x[i + lane]) == key;
            const unsigned equals = __ballot_sync(FULL_WARP, equal);
            if (equal && before + __popc(equals & ((2u << lane) - 1)) == target) found = unsigned(i + lane);
            before += __popc(equals);
        }
    }
    __syncthreads();
    return found;
}

// top-p cutoff: the last of the largest entries of `kept` that reach the share `top_p` of its `total`.
__device__ Cutoff nucleus(const Scan& scan, Cutoff kept, double total, double top_p) {
    const u64 target = u64(ceil(__dmul_rn(__dmul_rn(top_p, total), FIXED)));
    const Selected at = select(scan, kept, Counting::Weights, target > 0 ? target : 1);
    // Rounding has left the sum just below the target.
    if (!at.found) return kept;
    const float logit = of_key(at.key);
    const u64 each = count_of(scan, Counting::Weights, logit), target_ties = (at.target + each - 1) / each;
    if (target_ties * each >= at.available) return Cutoff{logit, NONE};
    return Cutoff{logit, nth_equal(scan, at.key, target_ties)};
}

// Rounds up to f32.
__device__ float at_least(double x) {
    const float near = float(x);
    return double(near) < x ? nextafterf(near, INFINITY) : near;
}

// The first entry at which the cumulative weight exceeds the fraction `uniform` of `total`; NONE if no entry has a
// weight.
__device__ unsigned entry_at(const Scan& scan, const float* masses, double total, Cutoff cutoff, double uniform) {
    __shared__ float weights[CHUNK];
    __shared__ double share;
    __shared__ int chunk;
    __shared__ unsigned found;
    __syncthreads();
    if (threadIdx.x == 0) {
        const double target = __dmul_rn(uniform, total);
        double before = 0.0;
        chunk = -1;
        for (int i = 0; i < scan.chunks; i++) {
            const double mass = double(masses[i]);
            // Rounding may leave the sum just below the target: the last chunk with weight is taken then.
            if (mass > 0.0) {
                share = (target - before) / mass;
                chunk = i;
                before += mass;
                if (before > target) break;
            }
        }
    }
    __syncthreads();
    if (chunk < 0) return NONE;
    const int start = chunk * CHUNK, len = min(CHUNK, scan.vocabulary - start);
    if (int(threadIdx.x) < len) {
        // Relative to the chunk's largest logit, so that no weight of the chunk's sum underflows.
        const float x = scan.x[start + threadIdx.x], w = weight((x - scan.maxima[chunk]) * scan.scale);
        weights[threadIdx.x] = cutoff.keeps(unsigned(start) + threadIdx.x, x) ? w : 0.0f;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double all = 0.0, sum = 0.0;
        for (int i = 0; i < len; i++) all += double(weights[i]);
        const double target = __dmul_rn(share, all);
        int chosen = 0;
        for (int i = 0; i < len; i++) {
            if (!(weights[i] > 0.0f)) continue;
            chosen = i;
            sum += double(weights[i]);
            if (sum > target) break;
        }
        found = unsigned(start + chosen);
    }
    __syncthreads();
    return found;
}

// All draws of a request. `work` (requests, 2, chunks) holds masses.
__global__ void sample_draw_kernel(SampledToken* sampled, float* work, const float* logits, const float* edited,
                                   const float* maxima, const float* masses, const View* views, const Request* requests,
                                   const unsigned* uniforms, int vocabulary, int chunks) {
    const Request request = requests[blockIdx.x];
    float* const raw_masses = work + (long long)blockIdx.x * 2 * chunks;
    float* const kept_masses = raw_masses + chunks;

    const Scan raw = scan_of(views[request.raw], request.raw, logits, edited, maxima, vocabulary, chunks);
    relative_masses(raw, masses + (long long)request.raw * chunks, raw_masses);
    const double raw_total = total_of(raw_masses, chunks);

    const Scan scan = scan_of(views[request.view], request.view, logits, edited, maxima, vocabulary, chunks);
    Cutoff cutoff{-INFINITY, NONE};
    double total = raw_total;
    if (request.greedy == 0) {
        const double min_p = to_f64(request.min_p), top_p = to_f64(request.top_p);
        if (min_p > -INFINITY) cutoff.logit = at_least(double(scan.top) + min_p);
        if (request.top_k > 0 && request.top_k < unsigned(vocabulary)) {
            const Selected at = select(scan, Cutoff{-INFINITY, NONE}, Counting::Ones, request.top_k);
            if (at.found) cutoff.logit = fmaxf(cutoff.logit, of_key(at.key));
        }
        for (int round = 0;; round++) {
            if (cutoff.logit > -INFINITY) truncated_masses(scan, cutoff, kept_masses);
            else relative_masses(scan, masses + (long long)request.view * chunks, kept_masses);
            total = total_of(kept_masses, chunks);
            if (round == 1 || !(top_p < 1.0) || !(total > 0.0)) break;
            cutoff = nucleus(scan, cutoff, total, top_p);
        }
    }
    for (unsigned draw = request.first_draw; draw < request.first_draw + request.draws; draw++) {
        unsigned index = NONE;
        if (request.greedy == 0) index = entry_at(scan, kept_masses, total, cutoff, to_f64(uniforms + draw * 2));
        // A logit of +inf makes all weights 0 or NaN.
        if (index == NONE) index = largest_of(scan);
        if (threadIdx.x == 0) {
            u64 bits;
            memcpy(&bits, &raw_total, sizeof bits);
            const float logit = index == NONE ? 0.0f : raw.x[index];
            sampled[draw] = SampledToken{index, logit, raw.top, {unsigned(bits), unsigned(bits >> 32)}};
        }
    }
}

}  // namespace

extern "C" int er_sample_copy(float* edited, const float* logits, const unsigned* sources, const unsigned* only,
                              int rows, int vocabulary, void* stream) {
    const dim3 grid(blocks_for(vocabulary, THREADS * 8), unsigned(rows));
    return LAUNCH(sample_copy_kernel, grid, THREADS, 0, stream, edited, logits, sources, only, vocabulary);
}

extern "C" int er_sample_edit(float* edited, const float* logits, const unsigned* sources, const unsigned* edits,
                              const unsigned* changes, const float* values, int count, int vocabulary, void* stream) {
    return LAUNCH(sample_edit_kernel, blocks_for(count, THREADS), THREADS, 0, stream, edited, logits, sources, edits,
                  changes, values, count, vocabulary);
}

extern "C" int er_sample_scan(float* maxima, float* masses, const float* logits, const float* edited,
                              const unsigned* views, int count, int vocabulary, void* stream) {
    const int chunks = (vocabulary + CHUNK - 1) / CHUNK, per_block = THREADS / LANES;
    const dim3 grid(unsigned((chunks + per_block - 1) / per_block), unsigned(count));
    return LAUNCH(sample_scan_kernel, grid, THREADS, 0, stream, maxima, masses, logits, edited, (const View*)views,
                  vocabulary, chunks);
}

extern "C" int er_sample_draw(unsigned* sampled, float* work, const float* logits, const float* edited,
                              const float* maxima, const float* masses, const unsigned* views, const unsigned* requests,
                              const unsigned* uniforms, int count, int vocabulary, void* stream) {
    const int chunks = (vocabulary + CHUNK - 1) / CHUNK;
    return LAUNCH(sample_draw_kernel, unsigned(count), THREADS, 0, stream, (SampledToken*)sampled, work, logits, edited,
                  maxima, masses, (const View*)views, (const Request*)requests, uniforms, vocabulary, chunks);
}

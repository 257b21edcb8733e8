// Drawing from rows of logits as `sample::Scan` on the host does it: the same chunks, lanes and orders of sums and the
// same exponential, so that the same numbers give the same draws. Products that a sum follows are rounded by themselves
// (`__fmul_rn`): nvcc would fuse the two.
//
// The one sum in another order is that of the nucleus, in fixed point with 44 bits behind the point: the order of
// additions does not matter then.

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

// A row of logits, and what they are multiplied by.
struct View {
    unsigned row;
    unsigned edited; // whether it is one of the edited rows
    float scale;
};

// What is drawn from a view. Numbers in f64 come as two words, the lower first.
struct Choice {
    unsigned raw;  // view that log-probabilities are of
    unsigned view; // view that is drawn from
    unsigned first_draw, draws;
    unsigned greedy;
    unsigned top_k;
    unsigned top_p[2];
    unsigned min_p[2]; // ln(min-p) / scale; -inf leaves all
};

// One draw's result.
struct Drawn {
    unsigned index;    // NONE where no entry is left
    float logit;       // of the raw view
    float top;         // likewise the largest
    unsigned total[2]; // likewise the sum of weights, in f64
};

// The last entry that may be drawn, where larger logits go first and equal ones by index.
struct Cut {
    float logit;
    unsigned index;

    __device__ bool keeps(unsigned at, float x) const { return x > logit || (x == logit && at <= index); }
};

__device__ double wide(const unsigned* words) {
    const u64 bits = words[0] | u64(words[1]) << 32;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// `math::exp`, to the bit.
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

// Larger numbers have larger keys.
__device__ unsigned key_of(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ float of_key(unsigned key) { return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key); }

__device__ const float* row_of(const View& view, const float* logits, const float* edited, int vocabulary) {
    return (view.edited ? edited : logits) + (long long)view.row * vocabulary;
}

// Sums of a chunk's lanes, from the first on; 16 neighbouring threads show one lane each.
__device__ float lane_sum(float x) {
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++) sum += __shfl_sync(FULL_WARP, x, lane, LANES);
    return sum;
}

// edited[row] = logits[source], or -inf where only some tokens are allowed.
__global__ void sample_copy_kernel(float* edited, const float* logits, const unsigned* sources, const unsigned* only,
                                   int vocabulary) {
    const long long row = blockIdx.y;
    const float* from = logits + (long long)sources[row] * vocabulary;
    for (long long i = first_item(); i < vocabulary; i += item_step())
        edited[row * vocabulary + i] = only[row] ? -INFINITY : from[i];
}

enum Change { ALLOW = 0, BAR = 1, ADD = 2, PENALISE = 3 };

// Changes single logits of edited rows. A place (row, id, first change, end) has its changes one after the other.
__global__ void sample_edit_kernel(float* edited, const float* logits, const unsigned* sources, const unsigned* places,
                                   const unsigned* changes, const float* values, int count, int vocabulary) {
    for (long long i = first_item(); i < count; i += item_step()) {
        const unsigned *place = places + i * 4, row = place[0], id = place[1];
        float x = edited[(long long)row * vocabulary + id];
        for (unsigned at = place[2]; at < place[3]; at++) {
            const float value = values[at];
            switch (changes[at]) {
                case ALLOW: x = logits[(long long)sources[row] * vocabulary + id]; break;
                case BAR: x = -INFINITY; break;
                case ADD: x += value; break;
                case PENALISE: x = x > 0.0f ? x / value : x * value; break;
            }
        }
        edited[(long long)row * vocabulary + id] = x;
    }
}

// Of each chunk the largest logit, and the sum of the weights relative to it: 16 threads a chunk.
__global__ void sample_scan_kernel(float* maxima, float* masses, const float* logits, const float* edited,
                                   const View* views, int vocabulary, int chunks) {
    const View view = views[blockIdx.y];
    const int chunk = blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const bool there = chunk < chunks;
    const float* x = row_of(view, logits, edited, vocabulary) + (long long)chunk * CHUNK;
    const int len = there ? min(CHUNK, vocabulary - chunk * CHUNK) : 0, whole = len / LANES * LANES;
    float largest = -INFINITY;
    for (int i = lane; i < len; i += LANES) largest = fmaxf(largest, x[i]);
    for (int step = LANES / 2; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, step));
    float sum = 0.0f;
    for (int i = lane; i < whole; i += LANES) sum += weight((x[i] - largest) * view.scale);
    const float rest = whole + lane < len ? weight((x[whole + lane] - largest) * view.scale) : 0.0f;
    const float mass = lane_sum(sum) + lane_sum(rest);
    if (there && lane == 0) {
        maxima[(long long)blockIdx.y * chunks + chunk] = largest;
        masses[(long long)blockIdx.y * chunks + chunk] = mass;
    }
}

// A view with what the scan gave, for one block.
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

// The masses' sum, from the first on; all threads get it.
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
__device__ void relative(const Scan& scan, const float* masses, float* out) {
    for (int i = threadIdx.x; i < scan.chunks; i += THREADS)
        out[i] = __fmul_rn(masses[i], weight((scan.maxima[i] - scan.top) * scan.scale));
}

// The same without what lies beyond the cut: 16 threads a chunk.
__device__ void relative_within(const Scan& scan, Cut cut, float* out) {
    const int lane = threadIdx.x % LANES;
    for (int first = 0; first < scan.chunks; first += THREADS / LANES) {
        const int chunk = first + int(threadIdx.x) / LANES;
        const bool there = chunk < scan.chunks && !(scan.maxima[chunk] < cut.logit);
        const int start = chunk * CHUNK, len = there ? min(CHUNK, scan.vocabulary - start) : 0;
        float sum = 0.0f;
        for (int i = lane; i < len; i += LANES) {
            const float x = scan.x[start + i], w = weight((x - scan.top) * scan.scale);
            sum += cut.keeps(unsigned(start + i), x) ? w : 0.0f;
        }
        const float mass = lane_sum(sum);
        if (chunk < scan.chunks && lane == 0) out[chunk] = mass;
    }
}

// Index of the first entry that equals the row's largest; NONE where there is none.
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

// How an entry counts: as one, or as its weight in fixed point.
enum class Counting { Ones, Weights };

__device__ u64 counted(const Scan& scan, Counting counting, float x) {
    return counting == Counting::Ones ? 1 : u64(double(weight((x - scan.top) * scan.scale)) * FIXED);
}

struct Selected {
    bool found;
    unsigned key;
    u64 wanted; // what is left to reach among the entries with this key
    u64 there;  // what these have together
};

// The entry at which the running count over the entries of `kept`, the largest first, reaches `wanted`: its key is
// found digit by digit.
__device__ Selected select(const Scan& scan, Cut kept, Counting counting, u64 wanted) {
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
                const u64 count = counted(scan, counting, x);
                if (count > 0) atomicAdd(&sums[key >> shift & 255u], count);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = DIGITS - 1;
            while (digit >= 0 && sums[digit] < wanted) wanted -= sums[digit--];
            at.found = digit >= 0;
            if (digit >= 0) at = Selected{true, prefix << 8 | unsigned(digit), wanted, sums[digit]};
        }
        __syncthreads();
        if (!at.found) return at;
        prefix = at.key;
        wanted = at.wanted;
    }
    return at;
}

// Index of the `wanted`-th entry with this key, from 1: each warp looks through a part of the row.
__device__ unsigned nth_equal(const Scan& scan, unsigned key, u64 wanted) {
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
    if (before < wanted && wanted <= before + count) {
        for (int i = first; i < end; i += WARP) {
            const bool equal = i + lane < end && key_of(scan.x[i + lane]) == key;
            const unsigned equals = __ballot_sync(FULL_WARP, equal);
            if (equal && before + __popc(equals & ((2u << lane) - 1)) == wanted) found = unsigned(i + lane);
            before += __popc(equals);
        }
    }
    __syncthreads();
    return found;
}

// The last of the likeliest entries of `kept` that together have the share `top_p` of its `total`.
__device__ Cut nucleus(const Scan& scan, Cut kept, double total, double top_p) {
    const u64 wanted = u64(ceil(__dmul_rn(__dmul_rn(top_p, total), FIXED)));
    const Selected at = select(scan, kept, Counting::Weights, wanted > 0 ? wanted : 1);
    // Rounding has left the sum just below what is wanted.
    if (!at.found) return kept;
    const float logit = of_key(at.key);
    const u64 each = counted(scan, Counting::Weights, logit), wanted_of_these = (at.wanted + each - 1) / each;
    if (wanted_of_these * each >= at.there) return Cut{logit, NONE};
    return Cut{logit, nth_equal(scan, at.key, wanted_of_these)};
}

// The smallest f32 that is no less than `x`.
__device__ float at_least(double x) {
    const float near = float(x);
    return double(near) < x ? nextafterf(near, INFINITY) : near;
}

// The first entry at which the running sum of the weights exceeds the share `uniform` of `total`; NONE where no entry
// has a weight.
__device__ unsigned entry_at(const Scan& scan, const float* masses, double total, Cut cut, double uniform) {
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
            // Rounding may leave the sum just below the target: the last chunk with weight stands in.
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
        // Relative to the chunk's own largest: none is lost that the chunk's sum has.
        const float x = scan.x[start + threadIdx.x], w = weight((x - scan.maxima[chunk]) * scan.scale);
        weights[threadIdx.x] = cut.keeps(unsigned(start) + threadIdx.x, x) ? w : 0.0f;
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

// All draws of a choice. `work` has room for the masses of each (choices, 2, chunks).
__global__ void sample_draw_kernel(Drawn* drawn, float* work, const float* logits, const float* edited,
                                   const float* maxima, const float* masses, const View* views, const Choice* choices,
                                   const unsigned* uniforms, int vocabulary, int chunks) {
    const Choice choice = choices[blockIdx.x];
    float* const raw_masses = work + (long long)blockIdx.x * 2 * chunks;
    float* const kept_masses = raw_masses + chunks;

    const Scan raw = scan_of(views[choice.raw], choice.raw, logits, edited, maxima, vocabulary, chunks);
    relative(raw, masses + (long long)choice.raw * chunks, raw_masses);
    const double raw_total = total_of(raw_masses, chunks);

    const Scan scan = scan_of(views[choice.view], choice.view, logits, edited, maxima, vocabulary, chunks);
    Cut cut{-INFINITY, NONE};
    double total = raw_total;
    if (choice.greedy == 0) {
        const double min_p = wide(choice.min_p), top_p = wide(choice.top_p);
        if (min_p > -INFINITY) cut.logit = at_least(double(scan.top) + min_p);
        if (choice.top_k > 0 && choice.top_k < unsigned(vocabulary)) {
            const Selected at = select(scan, Cut{-INFINITY, NONE}, Counting::Ones, choice.top_k);
            if (at.found) cut.logit = fmaxf(cut.logit, of_key(at.key));
        }
        for (int round = 0;; round++) {
            if (cut.logit > -INFINITY) relative_within(scan, cut, kept_masses);
            else relative(scan, masses + (long long)choice.view * chunks, kept_masses);
            total = total_of(kept_masses, chunks);
            if (round == 1 || !(top_p < 1.0) || !(total > 0.0)) break;
            cut = nucleus(scan, cut, total, top_p);
        }
    }
    for (unsigned draw = choice.first_draw; draw < choice.first_draw + choice.draws; draw++) {
        unsigned index = NONE;
        if (choice.greedy == 0) index = entry_at(scan, kept_masses, total, cut, wide(uniforms + draw * 2));
        // Beside a logit of +inf no other has weight, nor has it one itself.
        if (index == NONE) index = largest_of(scan);
        if (threadIdx.x == 0) {
            u64 bits;
            memcpy(&bits, &raw_total, sizeof bits);
            drawn[draw] = Drawn{index, index == NONE ? 0.0f : raw.x[index], raw.top, {unsigned(bits), unsigned(bits >> 32)}};
        }
    }
}

}  // namespace

extern "C" int er_sample_copy(float* edited, const float* logits, const unsigned* sources, const unsigned* only,
                              int rows, int vocabulary, void* stream) {
    const dim3 grid(blocks_for(vocabulary, THREADS * 8), unsigned(rows));
    return LAUNCH(sample_copy_kernel, grid, THREADS, 0, stream, edited, logits, sources, only, vocabulary);
}

extern "C" int er_sample_edit(float* edited, const float* logits, const unsigned* sources, const unsigned* places,
                              const unsigned* changes, const float* values, int count, int vocabulary, void* stream) {
    return LAUNCH(sample_edit_kernel, blocks_for(count, THREADS), THREADS, 0, stream, edited, logits, sources, places,
                  changes, values, count, vocabulary);
}

extern "C" int er_sample_scan(float* maxima, float* masses, const float* logits, const float* edited,
                              const unsigned* views, int count, int vocabulary, void* stream) {
    const int chunks = (vocabulary + CHUNK - 1) / CHUNK, per_block = THREADS / LANES;
    const dim3 grid(unsigned((chunks + per_block - 1) / per_block), unsigned(count));
    return LAUNCH(sample_scan_kernel, grid, THREADS, 0, stream, maxima, masses, logits, edited, (const View*)views,
                  vocabulary, chunks);
}

extern "C" int er_sample_draw(unsigned* drawn, float* work, const float* logits, const float* edited,
                              const float* maxima, const float* masses, const unsigned* views, const unsigned* choices,
                              const unsigned* uniforms, int count, int vocabulary, void* stream) {
    const int chunks = (vocabulary + CHUNK - 1) / CHUNK;
    return LAUNCH(sample_draw_kernel, unsigned(count), THREADS, 0, stream, (Drawn*)drawn, work, logits, edited, maxima,
                  masses, (const View*)views, (const Choice*)choices, uniforms, vocabulary, chunks);
}

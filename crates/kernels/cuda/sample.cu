// Edits rows of logits, scans them and draws from them; `truncate.cu` narrows them in between.

#include "sample.h"

using namespace sampling;

namespace {

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

// The first entry at which the cumulative weight exceeds the fraction `uniform` of `total`; NONE if no entry has a
// weight. `groups` are the sums of the masses' groups.
__device__ unsigned entry_at(const Scan& scan, const float* masses, const double* groups, double total, Cutoff cutoff,
                             double uniform) {
    __shared__ float weights[CHUNK];
    __shared__ double weight_groups[CHUNK / GROUP];
    __shared__ double share;
    __shared__ int chunk;
    __shared__ unsigned found;
    __syncthreads();
    if (threadIdx.x == 0) {
        const double target = __dmul_rn(uniform, total);
        const Position at = position(masses, scan.chunks, groups, target);
        chunk = at.index;
        if (chunk >= 0) share = (target - at.before) / double(masses[chunk]);
    }
    __syncthreads();
    if (chunk < 0) return NONE;
    const int start = chunk * CHUNK, len = min(CHUNK, scan.vocabulary - start), at = int(threadIdx.x);
    float own = 0.0f;
    if (at < len) {
        // Relative to the chunk's largest logit, so that no weight of the chunk's sum underflows.
        const float x = scan.x[start + at], w = weight((x - scan.maxima[chunk]) * scan.scale);
        own = cutoff.keeps(unsigned(start + at), x) ? w : 0.0f;
    }
    weights[at] = own;
    const double all = grouped_total(weights, len, weight_groups);
    if (threadIdx.x == 0) {
        const Position entry = position(weights, len, weight_groups, __dmul_rn(share, all));
        found = unsigned(start + max(entry.index, 0));
    }
    __syncthreads();
    return found;
}

// All draws of a request. `work` (requests, 2, chunks) holds masses. Without `truncations`, no request has any.
__global__ void sample_draw_kernel(SampledToken* sampled, float* work, Batch batch, const Truncation* truncations,
                                   const unsigned* uniforms) {
    DYNAMIC_SHARED(double, groups);
    const Request request = batch.requests[blockIdx.x];
    const int chunks = batch.chunks;
    float *const masses = raw_masses(work, chunks), *const kept_masses = masses + chunks;

    const Scan raw = batch.scan(request.raw, top_of(batch, request.raw));
    for (int i = threadIdx.x; i < chunks; i += THREADS) masses[i] = relative_mass(raw, batch.masses_of(request.raw), i);
    const double raw_total = grouped_total(masses, chunks, groups);

    const Scan scan = batch.scan(request.view, top_of(batch, request.view));
    Cutoff cutoff{-INFINITY, NONE};
    double total = 0.0;
    if (request.greedy == 0) {
        if (truncations) {
            cutoff = truncations[blockIdx.x].cutoff;
        } else {
            for (int i = threadIdx.x; i < chunks; i += THREADS)
                kept_masses[i] = relative_mass(scan, batch.masses_of(request.view), i);
        }
        total = grouped_total(kept_masses, chunks, groups);
    }
    for (unsigned draw = request.first_draw; draw < request.first_draw + request.draws; draw++) {
        unsigned index = NONE;
        if (request.greedy == 0)
            index = entry_at(scan, kept_masses, groups, total, cutoff, to_f64(uniforms + draw * 2));
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

// `truncations` and the masses of the entries they keep, in `work`, are null if no request has any.
extern "C" int er_sample_draw(unsigned* sampled, float* work, const float* logits, const float* edited,
                              const float* maxima, const float* masses, const unsigned* views, const unsigned* requests,
                              const void* truncations, const unsigned* uniforms, int count, int vocabulary,
                              void* stream) {
    const int chunks = (vocabulary + CHUNK - 1) / CHUNK;
    const Batch batch{logits, edited, maxima, masses, (const View*)views, (const Request*)requests, vocabulary, chunks};
    // Vocabularies of up to 25 million.
    if (group_bytes(chunks) > 48 * 1024) return NO_SUCH_TYPE;
    return LAUNCH(sample_draw_kernel, unsigned(count), THREADS, group_bytes(chunks), stream, (SampledToken*)sampled,
                  work, batch, (const Truncation*)truncations, uniforms);
}

// Truncation of rows before sampling: min-p, top-k and top-p. Many blocks work on a row.
//
// The cutoffs of top-k and top-p are found by radix select over order-preserving keys: each of four passes adds up what
// the entries with the digits found so far count, by their next digit. Only the nucleus sums in another order than the
// host's `nucleus.rs`, in fixed point with 44 fractional bits, where the order of additions does not matter.

#include "sample.h"

using namespace sampling;

namespace {

constexpr int DIGITS = 256;
constexpr double FIXED = 17592186044416.0; // 2^44

// Chunks per block of a pass over a row.
constexpr int BLOCK_CHUNKS = 16;

// What an entry counts: one, or its weight in fixed point.
enum class Counting { Ones, Weights };

template <Counting COUNTING> __device__ u64 count_of(const Scan& scan, float x) {
    return COUNTING == Counting::Ones ? 1 : u64(double(scan.relative(x)) * FIXED);
}

// Rounds up to f32.
__device__ float at_least(double x) {
    const float near = float(x);
    return double(near) < x ? nextafterf(near, INFINITY) : near;
}

// The cutoff of min-p, and the search for that of top-k; clears the request's sums.
__global__ void truncate_begin_kernel(Truncation* truncations, u64* sums, Batch batch) {
    const Request request = batch.requests[blockIdx.x];
    const float top = top_of(batch, request.view);
    for (int i = threadIdx.x; i < DIGITS; i += THREADS) sums[blockIdx.x * (long long)DIGITS + i] = 0;
    if (threadIdx.x != 0) return;
    const double min_p = to_f64(request.min_p);
    const bool by_count = request.greedy == 0 && request.top_k > 0 && request.top_k < unsigned(batch.vocabulary);
    const float logit = min_p > -INFINITY ? at_least(double(top) + min_p) : -INFINITY;
    truncations[blockIdx.x] = Truncation{{logit, NONE}, top, by_count, 0, 0, request.top_k};
}

// Adds what entries with the digits found so far count to the sums of their next digit, at `shift`.
template <Counting COUNTING>
__global__ void truncate_count_kernel(const Truncation* truncations, u64* sums, Batch batch, int shift) {
    __shared__ u64 own[DIGITS];
    const Truncation truncation = truncations[blockIdx.y];
    if (!truncation.searching) return;
    const Scan scan = batch.scan(batch.requests[blockIdx.y].view, truncation.top);
    // top-k counts all entries, top-p those that are kept so far.
    const Cutoff kept = COUNTING == Counting::Ones ? Cutoff{-INFINITY, NONE} : truncation.cutoff;
    for (int i = threadIdx.x; i < DIGITS; i += THREADS) own[i] = 0;
    __syncthreads();
    // Neighboring entries often share a digit: one addition for a run of them.
    unsigned digit = 0;
    u64 run = 0;
    const int first = blockIdx.x * BLOCK_CHUNKS, end = min(first + BLOCK_CHUNKS, scan.chunks);
    for (int chunk = first; chunk < end; chunk++) {
        // Sums with 0, so that a maximum of -0 has the key of 0, which may be in the chunk too.
        const float largest = scan.maxima[chunk] + 0.0f;
        if (largest < kept.logit || (shift < 24 && key_of(largest) >> (shift + 8) < truncation.prefix)) continue;
        const int i = chunk * CHUNK + int(threadIdx.x);
        if (i >= scan.vocabulary) continue;
        const float x = scan.x[i];
        const unsigned key = key_of(x);
        const bool same = shift == 24 || key >> (shift + 8) == truncation.prefix;
        if (!same || !kept.keeps(unsigned(i), x)) continue;
        const unsigned next = key >> shift & 255u;
        if (next != digit) {
            if (run > 0) atomicAdd(&own[digit], run);
            digit = next, run = 0;
        }
        run += count_of<COUNTING>(scan, x);
    }
    if (run > 0) atomicAdd(&own[digit], run);
    __syncthreads();
    for (int i = threadIdx.x; i < DIGITS; i += THREADS)
        if (own[i] > 0) atomicAdd(&sums[blockIdx.y * (long long)DIGITS + i], own[i]);
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

// Picks the digit at which the sums of the digits, from the largest down, reach the target, and clears them. At the last
// digit, sets the cutoff.
template <Counting COUNTING>
__global__ void truncate_pick_kernel(Truncation* truncations, u64* sums, Batch batch, int shift) {
    static_assert(DIGITS == THREADS, "a thread has a digit");
    // [digit]: the sum from this digit up.
    __shared__ u64 from[DIGITS + 1];
    __shared__ bool found;
    __shared__ unsigned key;
    __shared__ u64 target, available;
    const Truncation truncation = truncations[blockIdx.x];
    if (!truncation.searching) return;
    const int digit = int(threadIdx.x);
    u64* const own = &sums[blockIdx.x * (long long)DIGITS + digit];
    from[digit] = *own;
    *own = 0;
    if (digit == 0) from[DIGITS] = 0, found = false;
    for (int step = 1; step < DIGITS; step *= 2) {
        __syncthreads();
        const u64 more = digit + step < DIGITS ? from[digit + step] : 0;
        __syncthreads();
        from[digit] += more;
    }
    __syncthreads();
    const u64 above = from[digit + 1];
    if (above < truncation.target && truncation.target <= from[digit]) {
        found = true;
        key = truncation.prefix << 8 | unsigned(digit);
        target = truncation.target - above;
        available = from[digit] - above;
    }
    __syncthreads();
    Truncation next = truncation;
    // Rounding may leave the sum of all just below the target: nothing more is cut off then.
    next.searching = found && shift > 0;
    if (found) next.prefix = key, next.target = target;
    if (found && shift == 0) {
        const float logit = of_key(key);
        if (COUNTING == Counting::Ones) {
            next.cutoff.logit = fmaxf(next.cutoff.logit, logit);
        } else {
            const Scan scan = batch.scan(batch.requests[blockIdx.x].view, truncation.top);
            const u64 each = count_of<COUNTING>(scan, logit), ties = (target + each - 1) / each;
            next.cutoff = Cutoff{logit, ties * each >= available ? NONE : nth_equal(scan, key, ties)};
        }
    }
    if (threadIdx.x == 0) truncations[blockIdx.x] = next;
}

// The chunks' masses after truncation, as the host's `truncated_masses`: 16 threads per chunk.
__global__ void truncate_masses_kernel(float* work, const Truncation* truncations, Batch batch) {
    const Request request = batch.requests[blockIdx.y];
    if (request.greedy != 0) return;
    const Truncation truncation = truncations[blockIdx.y];
    const Cutoff cutoff = truncation.cutoff;
    const Scan scan = batch.scan(request.view, truncation.top);
    const int chunk = blockIdx.x * (THREADS / LANES) + int(threadIdx.x) / LANES, lane = threadIdx.x % LANES;
    const bool exists = chunk < scan.chunks, cut = cutoff.logit > -INFINITY;
    const int start = chunk * CHUNK;
    const int len = exists && cut && !(scan.maxima[chunk] < cutoff.logit) ? min(CHUNK, scan.vocabulary - start) : 0;
    float sum = 0.0f;
    for (int i = lane; i < len; i += LANES) {
        const float x = scan.x[start + i], w = scan.relative(x);
        sum += cutoff.keeps(unsigned(start + i), x) ? w : 0.0f;
    }
    const float mass = lane_sum(sum);
    if (!exists || lane != 0) return;
    float* const kept = work + ((long long)blockIdx.y * 2 + 1) * scan.chunks;
    kept[chunk] = cut ? mass : relative_mass(scan, batch.masses_of(request.view), chunk);
}

// The search for the cutoff of top-p, after the others.
__global__ void truncate_nucleus_kernel(Truncation* truncations, const float* work, Batch batch) {
    DYNAMIC_SHARED(double, groups);
    const Request request = batch.requests[blockIdx.x];
    const double top_p = to_f64(request.top_p);
    if (request.greedy != 0 || !(top_p < 1.0)) return;
    const double total = grouped_total(work + ((long long)blockIdx.x * 2 + 1) * batch.chunks, batch.chunks, groups);
    if (threadIdx.x != 0 || !(total > 0.0)) return;
    const u64 target = u64(ceil(__dmul_rn(__dmul_rn(top_p, total), FIXED)));
    Truncation& truncation = truncations[blockIdx.x];
    truncation.searching = 1, truncation.prefix = 0, truncation.target = target > 0 ? target : 1;
}

template <Counting COUNTING>
int search(Truncation* truncations, u64* sums, const Batch& batch, int count, void* stream) {
    const dim3 grid(unsigned((batch.chunks + BLOCK_CHUNKS - 1) / BLOCK_CHUNKS), unsigned(count));
    for (int shift = 24; shift >= 0; shift -= 8) {
        int code = LAUNCH((truncate_count_kernel<COUNTING>), grid, THREADS, 0, stream, truncations, sums, batch, shift);
        if (code) return code;
        code = LAUNCH((truncate_pick_kernel<COUNTING>), unsigned(count), THREADS, 0, stream, truncations, sums, batch,
                      shift);
        if (code) return code;
    }
    return 0;
}

}  // namespace

// Truncates all requests. `truncations` (requests, 8) and `sums` (requests, 2 · 256) are words for the kernels' use;
// `by_count` and `by_mass` tell whether any request has top-k or top-p.
extern "C" int er_sample_truncate(void* truncations, void* sums, float* work, const float* logits, const float* edited,
                                  const float* maxima, const float* masses, const unsigned* views,
                                  const unsigned* requests, int count, int vocabulary, int by_count, int by_mass,
                                  void* stream) {
    const int chunks = (vocabulary + CHUNK - 1) / CHUNK;
    const Batch batch{logits, edited, maxima, masses, (const View*)views, (const Request*)requests, vocabulary, chunks};
    if (group_bytes(chunks) > 48 * 1024) return NO_SUCH_TYPE;
    const dim3 by_chunk(unsigned((chunks + THREADS / LANES - 1) / (THREADS / LANES)), unsigned(count));
    Truncation* const states = (Truncation*)truncations;
    int code = LAUNCH(truncate_begin_kernel, unsigned(count), THREADS, 0, stream, states, (u64*)sums, batch);
    if (!code && by_count) code = search<Counting::Ones>(states, (u64*)sums, batch, count, stream);
    if (!code) code = LAUNCH(truncate_masses_kernel, by_chunk, THREADS, 0, stream, work, states, batch);
    if (code || !by_mass) return code;
    code = LAUNCH(truncate_nucleus_kernel, unsigned(count), THREADS, group_bytes(chunks), stream, states, work, batch);
    if (!code) code = search<Counting::Weights>(states, (u64*)sums, batch, count, stream);
    if (!code) code = LAUNCH(truncate_masses_kernel, by_chunk, THREADS, 0, stream, work, states, batch);
    return code;
}

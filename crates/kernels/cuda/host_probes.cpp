// Kernels that test the emulation of tensor-core instructions and asynchronous copies: src/cuda/host/tensor_cores.rs.

#include "mma.h"

namespace {

// One mma on the fragments of each lane.
__global__ void multiply_kernel(float* c, const unsigned* a, const unsigned* b) {
    const int lane = threadIdx.x;
    float sum[4] = {};
    const unsigned left[4] = {a[lane * 4], a[lane * 4 + 1], a[lane * 4 + 2], a[lane * 4 + 3]};
    multiply_accumulate(sum, left, b[lane * 2], b[lane * 2 + 1]);
    for (int i = 0; i < 4; i++) c[lane * 4 + i] = sum[i];
}

// Each lane's fragments of four matrices (4, 8, 8), whose rows are `stride` elements apart and `shift` elements off.
__global__ void load_kernel(unsigned* out, const bf16* matrices, int stride, int shift, bool transposed) {
    DYNAMIC_SHARED(bf16, rows);
    const int lane = threadIdx.x;
    bf16* const row = rows + lane * stride + shift;
    for (int i = 0; i < 8; i++) row[i] = matrices[lane * 8 + i];
    __syncwarp();
    unsigned loaded[4];
    if (transposed) load_transposed_matrices(loaded, row);
    else load_matrices(loaded, row);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = loaded[i];
}

enum Mistake { NO_MISTAKE, WAITS_FOR_OLDER_GROUPS, NO_BARRIER, NEVER_WAITS };

// Each thread copies 16 bytes in a group of its own after another group, and returns what its neighbor has copied.
__global__ void copy_kernel(bf16* out, const bf16* in, int mistake) {
    DYNAMIC_SHARED(bf16, copied);
    const int of = threadIdx.x * 8, next = (threadIdx.x + 1) % blockDim.x * 8;
    bf16* const second = copied + blockDim.x * 8;
    copy_async(copied + of, in + of);
    commit_copies();
    copy_async(second + of, in + of);
    commit_copies();
    if (mistake == WAITS_FOR_OLDER_GROUPS) wait_for_copies<1>();
    else if (mistake != NEVER_WAITS) wait_for_copies<0>();
    if (mistake != NO_BARRIER) __syncthreads();
    for (int i = 0; i < 8; i++) out[of + i] = second[next + i];
    if (mistake == WAITS_FOR_OLDER_GROUPS) wait_for_copies<0>();
}

} // namespace

extern "C" int er_host_multiply(float* c, const unsigned* a, const unsigned* b) {
    return LAUNCH(multiply_kernel, 1, WARP, 0, nullptr, c, a, b);
}

extern "C" int er_host_load(unsigned* out, const void* matrices, int stride, int shift, int transposed) {
    const bf16* const from = (const bf16*)matrices;
    const bool trans = transposed != 0;
    return LAUNCH(load_kernel, 1, WARP, WARP * stride * 2 + 32, nullptr, out, from, stride, shift, trans);
}

extern "C" int er_host_copy(void* out, const void* in, int threads, int mistake) {
    bf16* const to = (bf16*)out;
    const bf16* const from = (const bf16*)in;
    return LAUNCH(copy_kernel, 1, unsigned(threads), threads * 32, nullptr, to, from, mistake);
}

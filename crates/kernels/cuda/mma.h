// Tensor-core instructions on bf16, and asynchronous copies to shared memory (compute capability 8.0).
//
// Fragments are those of mma.m16n8k16 in the PTX ISA; host_mma.h spells them out.
#pragma once

#include "device.h"

#ifdef EMBODIED_R_HOST
#include "host_mma.h"

// Loads four 8 × 8 matrices of bf16 from shared memory. Lane 8i + r passes the address of row r of matrix i.
inline void load_matrices(unsigned (&out)[4], const bf16* row) { host::load_matrices<false>(out, row); }

// The same, and transposes each.
inline void load_transposed_matrices(unsigned (&out)[4], const bf16* row) { host::load_matrices<true>(out, row); }

// c += a · b: (16, 16) times (16, 8), products of bf16 added in f32.
inline void multiply_accumulate(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    host::mma_m16n8k16(c, a, b0, b1);
}

// Two floats rounded to bf16, `low` in the lower half.
inline unsigned pack_bf16(float low, float high) {
    return unsigned(__float2bfloat16(high).bits) << 16 | __float2bfloat16(low).bits;
}

// Starts copying 16 bytes to shared memory.
inline void copy_async(bf16* to, const bf16* from) { host::copy_async(to, from); }

// Closes the calling thread's group of copies.
inline void commit_copies() { host::copy_async_commit(); }

// Waits for all groups of the calling thread but the latest PENDING. A barrier makes the data visible to other threads.
template <int PENDING> inline void wait_for_copies() { host::copy_async_wait(PENDING); }

#else

__device__ inline unsigned shared_address(const void* pointer) { return unsigned(__cvta_generic_to_shared(pointer)); }

__device__ inline void load_matrices(unsigned (&out)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void load_transposed_matrices(unsigned (&out)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline void multiply_accumulate(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline unsigned pack_bf16(float low, float high) {
    unsigned out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

__device__ inline void copy_async(bf16* to, const bf16* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING> __device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
#endif

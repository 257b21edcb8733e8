// CPU emulation of tensor-core instructions and asynchronous copies, with the fragment layouts of the PTX ISA
// ("Warp-level matrix instructions"). Included by mma.h.
#pragma once

#include "host.h"

namespace host {

constexpr int COPY_BYTES = 16;

// cp.async: `to` holds NaN until the calling thread has waited for the copy's group.
void copy_async(void* to, const void* from);
void copy_async_commit();
void copy_async_wait(unsigned pending); // for all groups but the latest `pending`

// 8 elements of 16 bits: a row of a matrix.
struct MatrixRow { uint16_t of[8]; };

// ldmatrix.x4: lane 8i + r has the address of row r of matrix i, and receives in `out[i]` the elements (l / 4, 2(l % 4))
// and (l / 4, 2(l % 4) + 1) of matrix i, where l is the lane; of its transpose if TRANSPOSED.
template <bool TRANSPOSED> void load_matrices(unsigned (&out)[4], const void* row) {
    if (uintptr_t(row) % sizeof(MatrixRow)) fault("a row of ldmatrix is not 16-byte aligned");
    Message message{{0, 0, uintptr_t(row)}};
    memcpy(message.words, row, sizeof(MatrixRow));
    const Message* const received = exchange(0xffffffffu, message, NO_LANE);
    const int lane = host::lane(), first = lane / 4, second = lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
        MatrixRow rows[8];
        unsigned banks = 0;
        for (int r = 0; r < 8; r++) {
            memcpy(&rows[r], received[8 * i + r].words, sizeof(MatrixRow));
            banks |= 1u << received[8 * i + r].words[2] / sizeof(MatrixRow) % 8;
        }
        if (banks != 0xff) fault("the rows of a matrix of ldmatrix share banks of shared memory");
        const uint16_t low = TRANSPOSED ? rows[second].of[first] : rows[first].of[second];
        const uint16_t high = TRANSPOSED ? rows[second + 1].of[first] : rows[first].of[second + 1];
        out[i] = unsigned(high) << 16 | low;
    }
}

inline float bf16_half(uint64_t pair, int half) {
    return __bfloat162float({uint16_t(pair >> (16 * half))});
}

// mma.m16n8k16, bf16 to f32: c += a · b. With g = lane / 4 and t = lane % 4 a lane holds
//   a[0..4]: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) of the 16 × 16 matrix, each with its right neighbor;
//   b[0..2]: (2t, g), (2t + 8, g) of the 16 × 8 matrix, each with its lower neighbor;
//   c[0..4]: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1) of the 16 × 8 matrix.
// Adds the products in the order of k; the hardware's order is not documented.
inline void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const Message message{{a[0] | uint64_t(a[1]) << 32, a[2] | uint64_t(a[3]) << 32, b0 | uint64_t(b1) << 32}};
    const Message* const received = exchange(0xffffffffu, message, NO_LANE);
    const int group = lane() / 4, column = lane() % 4 * 2;
    for (int k = 0; k < 16; k++) {
        const int of_k = k % 8 / 2;
        const Message& from = received[group * 4 + of_k];
        const uint64_t pairs = from.words[k / 8]; // rows g and g + 8
        const float above = bf16_half(pairs, k % 2), below = bf16_half(pairs, 2 + k % 2);
        for (int n = 0; n < 2; n++) {
            const float right = bf16_half(received[(column + n) * 4 + of_k].words[2], k / 8 * 2 + k % 2);
            c[n] += above * right; // products of bf16 are exact in f32
            c[2 + n] += below * right;
        }
    }
}

} // namespace host

// Appends rows to several buffers in one launch.

#include "device.h"

namespace {

// Maximum copies per launch: bounded by the size of the kernel arguments.
constexpr int MAX_COPIES = 16;

struct Copies {
    void* to[MAX_COPIES];
    const void* from[MAX_COPIES];
    long long bytes[MAX_COPIES];
};

// Grid row i makes the i-th copy, in units of U.
template <class U> __global__ void row_buffer_push_kernel(Copies copies) {
    U* const to = static_cast<U*>(copies.to[blockIdx.y]);
    const U* const from = static_cast<const U*>(copies.from[blockIdx.y]);
    const long long units = copies.bytes[blockIdx.y] / (long long)sizeof(U);
    for (long long i = first_item(); i < units; i += item_step()) to[i] = from[i];
}

} // namespace

// `count` copies in one launch; sizes are multiples of 2 bytes.
extern "C" int er_row_buffer_push(void* const* to, const void* const* from, const long long* bytes, int count,
                                  void* stream) {
    if (count < 1 || count > MAX_COPIES) return NO_SUCH_TYPE;
    Copies copies = {};
    uintptr_t all = 0;
    long long most = 0;
    for (int i = 0; i < count; i++) {
        copies.to[i] = to[i], copies.from[i] = from[i], copies.bytes[i] = bytes[i];
        all |= addresses(to[i], from[i]) | uintptr_t(bytes[i]);
        most = bytes[i] > most ? bytes[i] : most;
    }
    const dim3 wide(blocks_for(most / 16, 256), count), narrow(blocks_for(most / 2, 256), count);
    if (all % 16 == 0) return LAUNCH((row_buffer_push_kernel<uint4>), wide, 256, 0, stream, copies);
    return LAUNCH((row_buffer_push_kernel<uint16_t>), narrow, 256, 0, stream, copies);
}

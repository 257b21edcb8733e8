// Rows put behind those of tables.

#include "device.h"

namespace {

// Tables at most in one launch: as many as fit into a kernel's arguments without much ado.
constexpr int MOST = 16;

struct Copies {
    void* to[MOST];
    const void* from[MOST];
    long long bytes[MOST];
};

// Block row i copies the i-th, in units of U.
template <class U> __global__ void table_push_kernel(Copies copies) {
    U* const to = static_cast<U*>(copies.to[blockIdx.y]);
    const U* const from = static_cast<const U*>(copies.from[blockIdx.y]);
    const long long units = copies.bytes[blockIdx.y] / (long long)sizeof(U);
    for (long long i = first_item(); i < units; i += item_step()) to[i] = from[i];
}

} // namespace

// `count` copies at once, of whole 2-byte numbers.
extern "C" int er_table_push(void* const* to, const void* const* from, const long long* bytes, int count, void* stream) {
    if (count < 1 || count > MOST) return NO_SUCH_TYPE;
    Copies copies = {};
    uintptr_t all = 0;
    long long most = 0;
    for (int i = 0; i < count; i++) {
        copies.to[i] = to[i], copies.from[i] = from[i], copies.bytes[i] = bytes[i];
        all |= addresses(to[i], from[i]) | uintptr_t(bytes[i]);
        most = bytes[i] > most ? bytes[i] : most;
    }
    const dim3 wide(blocks_for(most / 16, 256), count), narrow(blocks_for(most / 2, 256), count);
    if (all % 16 == 0) return LAUNCH((table_push_kernel<uint4>), wide, 256, 0, stream, copies);
    return LAUNCH((table_push_kernel<uint16_t>), narrow, 256, 0, stream, copies);
}

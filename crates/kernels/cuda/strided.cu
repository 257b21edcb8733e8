// Copies between matrices with different strides.

#include "device.h"

// Copies a batch of (rows, width) matrices; strides are in elements.
template <class T>
__global__ void strided_copy_kernel(T* to, long long to_row, long long to_batch, const T* from, long long from_row,
                                    long long from_batch, long long rows, int width) {
    to += blockIdx.z * to_batch;
    from += blockIdx.z * from_batch;
    for (long long row = blockIdx.x; row < rows; row += gridDim.x)
        for (int at = first_in_row(); at < width; at += step_in_row()) to[row * to_row + at] = from[row * from_row + at];
}

extern "C" int er_strided_copy(void* to, long long to_row, long long to_batch, const void* from, long long from_row,
                               long long from_batch, long long rows, int width, int batch, int type, void* stream) {
    if (!row_fits(width) || batch < 1 || batch > 65535) return NO_SUCH_TYPE;
    dim3 grid = row_grid(rows, width);
    grid.z = unsigned(batch);
    WITH_TYPE(type, T,
        return LAUNCH((strided_copy_kernel<T>), grid, ROW_THREADS, 0, stream, (T*)to, to_row, to_batch, (const T*)from,
                      from_row, from_batch, rows, width))
    return NO_SUCH_TYPE;
}

// Column sums in two steps of fixed order: partial sums over rows, then over parts.

#include "device.h"

// parts[part][column] = Σ x over the part's rows.
template <class T>
__global__ void column_parts_kernel(float* parts, const T* x, long long rows, int width, int part_rows) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const long long first = (long long)blockIdx.y * part_rows;
    const long long end = first + part_rows < rows ? first + part_rows : rows;
    float sum = 0.0f;
    for (long long row = first; row < end; row++) sum += to_float(x[row * width + column]);
    parts[(long long)blockIdx.y * width + column] = sum;
}

__global__ void add_parts_kernel(float* to, const float* parts, int count, int width) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0.0f;
    for (int part = 0; part < count; part++) sum += parts[(long long)part * width + column];
    to[column] += sum;
}

extern "C" int er_column_parts(float* parts, const void* x, long long rows, int width, int part_rows, int type,
                               void* stream) {
    const dim3 grid(unsigned((width + 127) / 128), unsigned((rows + part_rows - 1) / part_rows));
    WITH_TYPE(type, T,
        return LAUNCH((column_parts_kernel<T>), grid, 128, 0, stream, parts, (const T*)x, rows, width, part_rows))
    return NO_SUCH_TYPE;
}

extern "C" int er_add_parts(float* to, const float* parts, int count, int width, void* stream) {
    return LAUNCH(add_parts_kernel, unsigned((width + 127) / 128), 128, 0, stream, to, parts, count, width);
}

#include "device.h"

#ifndef EMBODIED_R_HOST
#include <mutex>
#include <set>
#include <utility>

int allow_shared(const void* kernel) {
    static std::mutex lock;
    static std::set<std::pair<const void*, int>> done;
    int device = 0, most = 0;
    cudaFuncAttributes of_kernel;
    cudaError_t error = cudaGetDevice(&device);
    if (error != cudaSuccess) return (int)error;
    const std::lock_guard<std::mutex> guard(lock);
    if (done.count({kernel, device})) return 0;
    error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&of_kernel, kernel);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     most - (int)of_kernel.sharedSizeBytes);
    if (error == cudaSuccess) done.insert({kernel, device});
    return (int)error;
}
#endif

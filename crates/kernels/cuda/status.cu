#include "device.h"

// Description of a launcher's error code.
extern "C" const char* er_error(int code) {
#ifdef EMBODIED_R_HOST
    return code == 9 ? "invalid configuration argument" : "invalid argument";
#else
    return cudaGetErrorString((cudaError_t)code);
#endif
}

extern "C" int er_fill_zero(void* to, long long bytes, void* stream) {
#ifdef EMBODIED_R_HOST
    (void)stream;
    memset(to, 0, size_t(bytes));
    return 0;
#else
    return (int)cudaMemsetAsync(to, 0, size_t(bytes), (cudaStream_t)stream);
#endif
}

#ifndef EMBODIED_R_HOST
// CUDA runtime version, 1000 · major + 10 · minor, or 0.
extern "C" int er_runtime_version() {
    int version = 0;
    return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}
#endif

// A stub CUDA driver: the functions of the CUDA driver and runtime, cuBLASLt, cuRAND and NCCL (a library of its own) that the
// program calls.
// Device memory is host memory. Copies and collectives are executed; kernels and matrix products are not, and leave their
// outputs unchanged. So a CUDA build runs on a machine without a GPU, and its host code is tested: launch sizes, leaks,
// the order of collectives, failing ranks.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_SUCH_DEVICE = 101, NOT_READY = 600, NOT_SUPPORTED = 801 };

// Creates an opaque handle.
static inline int make(void** handle) {
    *handle = malloc(1);
    return *handle ? OK : INVALID;
}

static inline int drop(void* handle) {
    free(handle);
    return OK;
}

// Aborts unless the `bytes` from `at` lie within one allocation.
void check_allocated(const void* at, size_t bytes);

// Aborts on an invalid call, which would be an error on a real GPU.
static inline void invalid(const char* what) {
    fprintf(stderr, "stub CUDA driver: %s\n", what);
    abort();
}

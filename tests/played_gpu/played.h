// A GPU that is played: the functions of CUDA's driver, its runtime, cuBLASLt, cuRAND and NCCL that the program calls.
// Memory is the host's, copies and collectives are made, kernels and products are not: whatever they would give is what
// was there. So a build for GPUs can be run where there is none, and all that its host code asks for is tried: sizes,
// memory that is given back, the order of collectives, ranks that are lost.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_SUCH_DEVICE = 101 };

// Something that has an address and needs no more.
static inline int make(void** handle) {
    *handle = malloc(1);
    return *handle ? OK : INVALID;
}

static inline int drop(void* handle) {
    free(handle);
    return OK;
}

// Ends the process unless so many bytes from an address on are a part of one piece of the GPU's memory.
void must_be_held(const void* at, size_t bytes);

// Ends the process, as a real GPU would end its work, where it is asked for what cannot be.
static inline void impossible(const char* what) {
    fprintf(stderr, "played GPU: %s\n", what);
    abort();
}

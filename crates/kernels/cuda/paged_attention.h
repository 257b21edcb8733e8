// Paged KV cache and work items of paged attention: crates/kernels/src/paged_attention/plan.rs.
#pragma once

#include "device.h"

constexpr int PAGE_SIZE = 64;
constexpr int MAX_DIM = 128;

// (pages, 2, heads, PAGE_SIZE, padded_dim): for each page keys then values, for each KV head. `padded_dim` is the head
// size padded to a multiple of 8 with 0, so that tokens are 16-byte aligned.
struct Pool {
    int heads;
    int padded_dim;

    __device__ long long offset(long long page, int is_value, int head) const {
        return ((page * 2 + is_value) * heads + head) * PAGE_SIZE * padded_dim;
    }
};

// Consecutive queries, and consecutive pages that each of them attends to.
struct WorkItem {
    unsigned first_row;
    unsigned rows;
    unsigned first_page;  // index in the page list
    unsigned pages;
    unsigned position;    // of the first page's first token, in its sequence
    unsigned part;        // first partial result; one per row
};

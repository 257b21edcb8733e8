//! CUDA implementation of the operations: the kernels of the folder `cuda`, launched on tensors' memory.
//!
//! An operation dispatches on its first tensor's device ([`on`]) to its namesake here, with checked shapes. Each
//! module declares its launchers and contains their only calls. With feature `cuda` tensors are on a GPU. With
//! `cuda-host` they are on the CPU, and the kernels run under CPU emulation (`cuda/host.h`) when switched on
//! ([`host`]).
//!
//! All work of a device is ordered on the stream of its candle device; [`crate::device::cuda`] opens one with a single
//! stream. A launcher is a C function that takes pointers, sizes, types and the stream, and returns CUDA's error code.
//!
//! # Numbers
//!
//! Activations are f32 or bf16; statistics, weight gradients, moments and sums are f32. GEMMs are cuBLASLt's: f32
//! without TF32, bf16 with f32 accumulation. Floating-point reductions have a fixed order: the same inputs in the same
//! batch give the same bits. Sums over a row are sums over chunks, then over their results, on the CPU too, so that no
//! thread adds up a whole row.
//!
//! - **GEMM** (`gemm`, `blas`). cuBLASLt's heuristic chooses by shape, strides and the alignment of all matrices of a
//!   batch; layouts and choices are cached. Split-K adds its parts in f32 only. What the library has no algorithm for,
//!   such as bf16 rows with an odd stride, is copied into aligned memory first. The choice depends on the number of
//!   rows, so a row's bits depend on the rows that it is computed with.
//! - **Quantized weights** (`quantized`) stay quantized. Up to 8 rows are multiplied with the blocks, one warp per
//!   output; up to 128 bf16 rows on tensor cores, with tiles dequantized in shared memory. For more rows, and for f32
//!   activations, 2^26 weights at a time are dequantized for cuBLASLt; none are cached, as they would cost the memory
//!   that quantization saves.
//! - **RoPE** (`rope`). A batch's cos/sin cache is computed once on the GPU, and shared by all layers, forward and
//!   backward. Angles are rounded to f32 as in transformers; sine and cosine are evaluated in f64.
//! - **Attention in training** (`attention`) takes chunks of queries with at most 2^25 scores per block. Each block is
//!   batched GEMMs: queries x keys, masked softmax with log-sum-exp, weights x values. A chunk of completions has an
//!   unmasked block for the prompt and a causal one per completion, merged by log-sum-exp; fully masked blocks are
//!   skipped. The backward pass recomputes the blocks.
//! - **Paged attention** (`paged_attention`). A layer's pages are one tensor (pages, 2, KV heads, 64 tokens, head size
//!   rounded up to 8). Runs of up to 16 queries, decoding above all, are split over the pages (split-KV): a block takes
//!   2 pages, one KV head, and up to 32 query heads of neighboring rows with the same pages, so a shared prompt is read
//!   once for them. A second kernel merges the parts in order. Parts start at fixed positions, so bits do not depend on
//!   the batch. Longer runs gather keys and values for training's attention, where bits depend on the chunks.
//! - **bf16 pages** use tensor cores. The rows of an `mma.m16n8k16` tile are 16 pairs of a row and a query head; four
//!   warps take a quarter of each page's tokens each; pages are copied by `cp.async`, and products with the keys begin
//!   before the values arrive. Weights are rounded to bf16 for the product with the values and summed before, as in
//!   FlashAttention: at 4,096 tokens the output is off by at most 2.9e-3 (2.5e-3 with weights in f32), the log-sum-exp
//!   by 5e-8. `EMBODIED_R_PAGED_ATTENTION=cuda-cores` selects the kernel of f32 pages for them too.
//! - **LM head** (`lm_head`): logits exist for 256 MiB at a time.
//! - **Sampling** (`sample`) gives the CPU's draws and log-probabilities bit for bit, given the same logits, except
//!   that the top-p nucleus sums weights in 44-bit fixed point. Cutoffs are found by radix select, many blocks per row.
//!
//! # Speed
//!
//! Decoding is bound by launch overhead and weight bandwidth: eleven launches per layer and token, twelve with the
//! activation cache, which `crates/policy/tests/launches.rs` counts. Query, key and value projections are one GEMM,
//! gate and up a batch of two; one kernel adds biases, applies RoPE and splits; GEMMs accumulate onto the residual in
//! place. Kernels must not spill registers (`scripts/kernel_resources.sh`). The tensor-core kernel, at 1 and 2 tiles of
//! 128 threads; blocks per streaming multiprocessor follow from the limits of the architecture:
//!
//! | head size | registers 8.0, 9.0 | shared memory, KiB | blocks, A100 | H100 |
//! |---|---|---|---|---|
//! | 128 | 125, 128 | 72, 77 | 2, 2 | 3, 2 |
//! | 96 | 105, 108 | 55, 59 | 2, 2 | 4, 2 |
//! | 64 | 86, 90 | 38, 41 | 4, 2 | 5, 2 |
//!
//! # Training
//!
//! With bf16 weights, rollout and update share the matrices, and AdamW and Muon update f32 master weights; gradients,
//! norms and biases are f32. Muon's orthogonalization is bf16, as PyTorch's. A gradient bucket is copied into one
//! tensor, NCCL sends it on a stream of its own, and the result is copied back; weights are all-gathered in f32.
//!
//! # Tests without a GPU
//!
//! **Tolerances** of [`crate::check`]: the difference relative to the value plus the result's root mean square is at
//! most 2e-5 in f32 (another order of summation), 2^-7 in bf16 (8 bits, rounded twice where a result accumulates), a
//! multiple of these for chained products, and 0 where bits must match. The bounds of `bench gpu`'s step `compare` in
//! bf16 are twice the largest difference between torch's bf16 and f32 (`scripts/parity/make_bf16_bounds.py`).
//!
//! **CPU emulation**, feature `cuda-host`: a C++ compiler builds the kernels with `cuda/host.h` for CUDA's language.
//! Blocks run one after the other; a block's threads are fibers that switch at barriers and warp exchanges. It finds
//! missed barriers, invalid warp exchanges and launches; values read before they are written (fresh results, shared
//! memory and the targets of asynchronous copies are NaN); wrong fragments of tensor-core instructions and bank
//! conflicts of `ldmatrix`; writes past the end of a result; and dependence on the order of threads and blocks, which
//! tests run ascending, descending and alternating. It has no memory model and finds no races that fibers happen to
//! order: `compute-sanitizer` on a GPU does.
//!
//! ```sh
//! EMBODIED_R_CUDA_HOST=1 cargo test -p embodied-r-kernels --features cuda-host
//! EMBODIED_R_CUDA_HOST=1 cargo run -p embodied-r-cli --features cuda-host -- bench ops --check --device cuda
//! ```
//!
//! **Stub driver**: `tests/stub_cuda` implements the functions of driver, runtime, cuBLASLt, cuRAND and NCCL that the
//! program calls. Memory is host memory, copies and collectives between processes are real, kernels and GEMMs do
//! nothing. It checks shapes, types and bounds of every product, copy and collective, grid limits and leaks.
//! `eval "$(scripts/stub_cuda.sh)"` lets a CUDA build run on it; `scripts/stub_nvcc.sh` skips candle's own kernels,
//! which saves ten minutes.

pub(crate) mod attention;
#[cfg(feature = "cuda")]
mod blas;
mod buffer;
pub(crate) mod elementwise;
pub(crate) mod fused;
pub(crate) mod gemm;
#[cfg(feature = "cuda-host")]
pub(crate) mod host;
#[cfg(not(feature = "cuda"))]
mod host_gemm;
#[cfg(feature = "cuda")]
pub(crate) mod inventory;
pub(crate) mod latency;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod lm_head;
pub(crate) mod lookup;
pub(crate) mod memory;
pub(crate) mod optimizer;
pub(crate) mod paged_attention;
pub(crate) mod profile;
pub(crate) mod quantized;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod row_buffer;
mod row_sums;
pub(crate) mod sample;
pub(crate) mod stall;
pub(crate) mod timer;
pub(crate) mod weight;

use std::ffi::c_int;

use candle_core::{Device, Tensor};

pub(crate) use buffer::{
    DeviceSlice, Dtype, Stream, create, read, upload, upload_values, write, write_all,
};

use crate::error::{Error, Result, check};

/// Whether an operation on this tensor runs CUDA kernels.
pub(crate) fn on(tensor: &Tensor) -> bool {
    is_device(tensor.device())
}

/// Whether operations on tensors of `device` run CUDA kernels.
pub(crate) fn is_device(device: &Device) -> bool {
    match device {
        #[cfg(feature = "cuda-host")]
        Device::Cpu => host::is_on(),
        Device::Cuda(_) => true,
        _ => false,
    }
}

/// An error for a launcher's non-zero code.
fn check_code(op: &'static str, code: i32) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(Error::Device { op, what: buffer::describe_code(code) }),
    }
}

/// Elements of a row that kernels over rows index in 32 bits (`row_fits` of `device.h`).
const MAX_ROW_WIDTH: usize = 1 << 30;

/// The number of elements of a row, for a kernel over rows.
///
/// # Errors
/// [`Error::Shape`] for a row that the kernels cannot index.
fn row_width(width: usize, op: &'static str) -> Result<c_int> {
    check(width <= MAX_ROW_WIDTH, op, || {
        format!("a row has {width} elements, more than {MAX_ROW_WIDTH}")
    })?;
    Ok(width as c_int)
}

/// Launches a kernel: `launch!(OP, launcher(arguments))`. The caller has checked that the sizes passed match the
/// memory.
macro_rules! launch {
    ($op:expr, $launcher:ident($($argument:expr),* $(,)?)) => {
        {
            // SAFETY: the launcher accesses the memory behind its pointers, of the sizes passed, which the operation
            // has checked; the tensors are borrowed during the launch, and later work is ordered after it on the
            // stream.
            let launch = || unsafe { $launcher($($argument),*) };
            $crate::cuda::check_code($op, $crate::cuda::profile::launched(stringify!($launcher), launch))
        }
    };
}
use launch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_needs_more_than_32_bit_indices_is_refused() {
        assert_eq!(row_width(MAX_ROW_WIDTH, "test").unwrap(), 1 << 30);
        // Truncated to 32 bits, the last would be a width of 5.
        for width in [MAX_ROW_WIDTH + 1, 1 << 31, (1 << 32) + 5] {
            let message = row_width(width, "test").unwrap_err().to_string();
            assert!(message.contains(&width.to_string()), "{message}");
        }
    }
}

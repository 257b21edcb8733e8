//! GEMMs of attention blocks, batched over the KV heads.

use std::ffi::c_void;

use candle_core::Device;

use super::blocks::{Block, Chunk};
use super::kernels::Launcher;
use super::scores::{OP, at, at_mut, stride};
use crate::attention::Heads;
use crate::cuda::Dtype;
use crate::cuda::gemm::{Destination, GemmOptions, Operand, gemm};
use crate::error::Result;
use crate::matmul::WriteMode;

/// Workspace sizes for the largest chunk and the largest block.
pub(super) struct WorkspaceSizes {
    /// Queries of a chunk.
    pub(super) queries: usize,
    /// Scores of a block, with padded rows.
    pub(super) scores: usize,
}

impl WorkspaceSizes {
    pub(super) fn of(chunks: &[Chunk], heads: Heads) -> Self {
        let scores = |block: &Block| heads.query * block.queries.len() * stride(block.keys.len());
        Self {
            queries: chunks.iter().map(|chunk| chunk.rows.len()).max().unwrap_or(0),
            scores: chunks.iter().flat_map(Chunk::blocks).map(scores).max().unwrap_or(0),
        }
    }
}

/// GEMMs of a chunk of `rows` queries. Packed tensors are (kv heads, rows · queries per KV head, dim), a block's
/// scores and weights (kv heads, its queries · queries per KV head, [`stride`]), keys and values (tokens, kv heads ·
/// dim).
pub(super) struct BlockGemms<'a> {
    pub(super) device: &'a Device,
    pub(super) launcher: Launcher,
    pub(super) rows: usize,
}

impl BlockGemms<'_> {
    fn heads(&self) -> Heads {
        self.launcher.pattern.heads
    }

    /// Rows of a block's scores per KV head.
    fn block_rows(&self, block: &Block) -> usize {
        block.queries.len() * self.heads().queries_per_kv()
    }

    /// Offset of a block's packed rows.
    fn first(&self, block: &Block) -> usize {
        block.queries.start * self.heads().queries_per_kv() * self.heads().dim
    }

    /// A block's packed rows.
    fn packed(&self, data: *const c_void, block: &Block) -> Operand {
        let (heads, dtype) = (self.heads(), self.launcher.dtype);
        Operand {
            ptr: at(data, self.first(block), dtype),
            dtype,
            rows: self.block_rows(block),
            cols: heads.dim,
            row_stride: heads.dim,
            batch_stride: self.rows * heads.queries_per_kv() * heads.dim,
            transposed: false,
        }
    }

    /// A block's keys or values.
    fn keys(&self, data: *const c_void, block: &Block) -> Operand {
        let (heads, dtype) = (self.heads(), self.launcher.dtype);
        Operand {
            ptr: at(data, block.keys.start * heads.kv_size(), dtype),
            dtype,
            rows: block.keys.len(),
            cols: heads.dim,
            row_stride: heads.kv_size(),
            batch_stride: heads.dim,
            transposed: false,
        }
    }

    /// A block's attention weights, or their gradients.
    fn weights(&self, data: *const c_void, block: &Block) -> Operand {
        let (rows, stride) = (self.block_rows(block), stride(block.keys.len()));
        Operand {
            ptr: data,
            dtype: self.launcher.dtype,
            rows,
            cols: block.keys.len(),
            row_stride: stride,
            batch_stride: rows * stride,
            transposed: false,
        }
    }

    /// `scores = packed · keysᵀ`, in f32.
    pub(super) fn query_key(
        &self,
        scores: *mut c_void,
        packed: *const c_void,
        keys: *const c_void,
        block: &Block,
    ) -> Result<()> {
        let (stride, rows) = (stride(block.keys.len()), self.block_rows(block));
        let to = Destination {
            row_stride: stride,
            batch_stride: rows * stride,
            ..Destination::new(scores, Dtype::F32, rows, block.keys.len())
        };
        self.product(
            to,
            self.packed(packed, block),
            self.keys(keys, block).t(),
            WriteMode::Overwrite,
        )
    }

    /// `packed = weights · values`, or `packed += …`, in f32.
    pub(super) fn weighted_values(
        &self,
        packed: *mut c_void,
        weights: *const c_void,
        values: *const c_void,
        block: &Block,
        into: WriteMode,
    ) -> Result<()> {
        let heads = self.heads();
        let first = at_mut(packed, self.first(block), Dtype::F32);
        let to = Destination {
            batch_stride: self.rows * heads.queries_per_kv() * heads.dim,
            ..Destination::new(first, Dtype::F32, self.block_rows(block), heads.dim)
        };
        self.product(to, self.weights(weights, block), self.keys(values, block), into)
    }

    /// `keys += weightsᵀ · packed`, in f32.
    pub(super) fn accumulate_kv_grad(
        &self,
        keys: *mut c_void,
        weights: *const c_void,
        packed: *const c_void,
        block: &Block,
    ) -> Result<()> {
        let heads = self.heads();
        let first = at_mut(keys, block.keys.start * heads.kv_size(), Dtype::F32);
        let to = Destination {
            row_stride: heads.kv_size(),
            batch_stride: heads.dim,
            ..Destination::new(first, Dtype::F32, block.keys.len(), heads.dim)
        };
        self.product(
            to,
            self.weights(weights, block).t(),
            self.packed(packed, block),
            WriteMode::Accumulate,
        )
    }

    fn product(&self, to: Destination, a: Operand, b: Operand, into: WriteMode) -> Result<()> {
        let options =
            GemmOptions { batch: self.heads().kv, alpha: 1.0, addend: into.into(), beta: 1.0 };
        gemm(self.device, to, a, b, options, OP)
    }
}

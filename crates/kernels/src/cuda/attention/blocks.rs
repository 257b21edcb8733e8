//! The dense products of attention's blocks, batches over the key heads.

use std::ffi::c_void;

use candle_core::Device;

use super::kernels::Launcher;
use super::plan::{Block, Chunk};
use super::{OP, at, at_mut, stride};
use crate::attention::Heads;
use crate::cuda::Dtype;
use crate::cuda::product::{Destination, Factor, How, product};
use crate::error::Result;
use crate::matmul::Into;

/// What the largest chunk and the largest block need room for.
pub(super) struct Sizes {
    /// Queries of a chunk.
    pub(super) queries: usize,
    /// Scores of a block, and what makes their rows a multiple of 8.
    pub(super) scores: usize,
}

impl Sizes {
    pub(super) fn of(chunks: &[Chunk], heads: Heads) -> Self {
        let scores = |block: &Block| heads.query * block.queries.len() * stride(block.keys.len());
        Self {
            queries: chunks.iter().map(|chunk| chunk.rows.len()).max().unwrap_or(0),
            scores: chunks.iter().flat_map(Chunk::blocks).map(scores).max().unwrap_or(0),
        }
    }
}

/// The products of a chunk of `rows` queries. What is packed is (kv heads, rows · shared, dim), scores and weights
/// of a block are (kv heads, its queries · shared, [`stride`]), and what belongs to keys (tokens, kv heads · dim).
pub(super) struct Blocks<'a> {
    pub(super) device: &'a Device,
    pub(super) launcher: Launcher,
    pub(super) rows: usize,
}

impl Blocks<'_> {
    fn heads(&self) -> Heads {
        self.launcher.pattern.heads
    }

    /// Rows of a block's scores in a key head.
    fn block_rows(&self, block: &Block) -> usize {
        block.queries.len() * self.heads().shared()
    }

    /// Where a block's packed rows begin.
    fn first(&self, block: &Block) -> usize {
        block.queries.start * self.heads().shared() * self.heads().dim
    }

    /// A block's rows of what is packed.
    fn packed(&self, numbers: *const c_void, block: &Block) -> Factor {
        let (heads, dtype) = (self.heads(), self.launcher.dtype);
        Factor {
            at: at(numbers, self.first(block), dtype),
            dtype,
            rows: self.block_rows(block),
            cols: heads.dim,
            row_stride: heads.dim,
            batch_stride: self.rows * heads.shared() * heads.dim,
            transposed: false,
        }
    }

    /// A block's keys, or their values.
    fn keys(&self, numbers: *const c_void, block: &Block) -> Factor {
        let (heads, dtype) = (self.heads(), self.launcher.dtype);
        Factor {
            at: at(numbers, block.keys.start * heads.kv_width(), dtype),
            dtype,
            rows: block.keys.len(),
            cols: heads.dim,
            row_stride: heads.kv_width(),
            batch_stride: heads.dim,
            transposed: false,
        }
    }

    /// A block's weights, or what else its type holds for each score.
    fn weights(&self, numbers: *const c_void, block: &Block) -> Factor {
        let (rows, stride) = (self.block_rows(block), stride(block.keys.len()));
        Factor {
            at: numbers,
            dtype: self.launcher.dtype,
            rows,
            cols: block.keys.len(),
            row_stride: stride,
            batch_stride: rows * stride,
            transposed: false,
        }
    }

    /// `scores = packed · keysᵀ`, in f32.
    pub(super) fn with_keys(
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
        self.product(to, self.packed(packed, block), self.keys(keys, block).t(), Into::Replace)
    }

    /// `packed = weights · values`, in f32, or that much more.
    pub(super) fn of_keys(
        &self,
        packed: *mut c_void,
        weights: *const c_void,
        values: *const c_void,
        block: &Block,
        into: Into,
    ) -> Result<()> {
        let heads = self.heads();
        let first = at_mut(packed, self.first(block), Dtype::F32);
        let to = Destination {
            batch_stride: self.rows * heads.shared() * heads.dim,
            ..Destination::new(first, Dtype::F32, self.block_rows(block), heads.dim)
        };
        self.product(to, self.weights(weights, block), self.keys(values, block), into)
    }

    /// `keys += weightsᵀ · packed`, in f32.
    pub(super) fn add_to_keys(
        &self,
        keys: *mut c_void,
        weights: *const c_void,
        packed: *const c_void,
        block: &Block,
    ) -> Result<()> {
        let heads = self.heads();
        let first = at_mut(keys, block.keys.start * heads.kv_width(), Dtype::F32);
        let to = Destination {
            row_stride: heads.kv_width(),
            batch_stride: heads.dim,
            ..Destination::new(first, Dtype::F32, block.keys.len(), heads.dim)
        };
        self.product(to, self.weights(weights, block).t(), self.packed(packed, block), Into::Add)
    }

    fn product(&self, to: Destination, a: Factor, b: Factor, into: Into) -> Result<()> {
        let how = How { batch: self.heads().kv, alpha: 1.0, base: into.into() };
        product(self.device, to, a, b, how, OP)
    }
}

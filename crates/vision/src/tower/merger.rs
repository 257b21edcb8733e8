//! The merger (aligner): from adjacent patches to a token of the decoder.

use candle_core::Tensor;
use embodied_r_kernels::gelu::{self, Gelu};
use embodied_r_kernels::memory;

use super::modules::Merger;
use crate::error::Result;
use crate::linear::Linear;

/// What the merger's backward needs besides the input.
pub(crate) struct MergerActivations {
    /// The norm's statistics.
    pub(crate) stats: Tensor,
    /// The input of GELU (tokens, merged patches · hidden).
    pub(crate) wide: Tensor,
}

impl<L, T> Merger<L, T> {
    /// The input as the norm takes it, in its memory.
    ///
    /// # Shapes
    /// `x` (patches, hidden); returns (patches, hidden) or (tokens, merged patches · hidden).
    pub(crate) fn of_norm(&self, x: &Tensor, merged: usize) -> Result<Tensor> {
        match self.joins_first {
            true => joined(x, merged),
            false => Ok(x.clone()),
        }
    }
}

/// `merged` adjacent rows as one, in their memory.
pub(crate) fn joined(x: &Tensor, merged: usize) -> Result<Tensor> {
    let (rows, width) = x.dims2().map_err(embodied_r_kernels::Error::from)?;
    Ok(memory::reshape(x, (rows / merged, width * merged))?)
}

impl Merger<Linear, Tensor> {
    /// # Shapes
    /// `x` (patches, hidden), where `merged` adjacent patches form a token; returns (tokens, hidden size of the decoder).
    /// `keys` of the tokens enable dropout.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        merged: usize,
        keys: Option<&[u64]>,
    ) -> Result<(Tensor, MergerActivations)> {
        let (normed, stats) = self.norm.forward(&self.of_norm(x, merged)?)?;
        let normed = if self.joins_first { normed } else { joined(&normed, merged)? };
        let wide = self.first.forward(&normed, keys)?;
        let y = self.second.forward(&gelu::forward(&wide, Gelu::Exact)?, keys)?;
        Ok((y, MergerActivations { stats, wide }))
    }
}

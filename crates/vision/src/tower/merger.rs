//! The merger (aligner): from adjacent patches to a token of the decoder.

use candle_core::Tensor;
use embodied_r_kernels::{gelu, memory, rms_norm};

use super::EPS;
use crate::error::Result;
use crate::linear::Linear;

/// Merges adjacent patches into tokens.
pub(crate) struct Merger {
    pub(super) norm: Tensor,
    pub(super) first: Linear,
    pub(super) second: Linear,
}

/// What the merger's backward needs besides the input.
pub(crate) struct MergerActivations {
    /// The norm's scale of each row.
    pub(crate) scale: Tensor,
    /// The input of GELU (tokens, merged patches · hidden).
    pub(crate) wide: Tensor,
}

impl Merger {
    /// # Shapes
    /// `x` (patches, hidden), where `merged` adjacent patches form a token; returns (tokens, hidden size of the decoder).
    /// `keys` of the tokens enable dropout.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        merged: usize,
        keys: Option<&[u64]>,
    ) -> Result<(Tensor, MergerActivations)> {
        let (patches, hidden) = (x.dims()[0], x.dims()[1]);
        let normed = rms_norm::forward(x, &self.norm, EPS)?;
        let joined = memory::reshape(&normed.y, (patches / merged, hidden * merged))?;
        let wide = self.first.forward(&joined, keys)?;
        let y = self.second.forward(&gelu::forward(&wide)?, keys)?;
        Ok((y, MergerActivations { scale: normed.scale, wide }))
    }
}

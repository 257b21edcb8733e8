//! Linear layers with a bias.

use candle_core::Tensor;
use embodied_r_kernels::weight::Weight;
use embodied_r_kernels::{dropout, memory};

use crate::error::Result;
use crate::tower::Dropout;

/// `x · Wᵀ + b`, plus the output of an adapter.
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Tensor,
    pub(crate) low_rank: Option<LowRank>,
}

/// LoRA: `s · (dropout(x) · Aᵀ) · Bᵀ` (Hu et al., 2021), in f32 on the CPU.
pub(crate) struct LowRank {
    /// (rank, inputs).
    pub(crate) a: Weight,
    /// (outputs, rank).
    pub(crate) b: Weight,
    pub(crate) scale: f32,
    pub(crate) dropout: Dropout,
}

impl Linear {
    pub(crate) fn new(weight: Weight, bias: Tensor) -> Self {
        Self { weight, bias, low_rank: None }
    }

    /// `keys` of the rows enable dropout.
    pub(crate) fn forward(&self, x: &Tensor, keys: Option<&[u64]>) -> Result<Tensor> {
        self.adapted(x, self.weight.forward(x, Some(&self.bias))?, keys)
    }

    /// As [`Self::forward`], added to `y`.
    pub(crate) fn forward_add(
        &self,
        x: &Tensor,
        y: &Tensor,
        keys: Option<&[u64]>,
    ) -> Result<Tensor> {
        self.adapted(x, self.weight.forward_add(x, y, Some(&self.bias))?, keys)
    }

    /// The layer without its adapter, for products with several weights.
    pub(crate) fn parts(&self) -> (&Weight, Option<&Tensor>) {
        (&self.weight, Some(&self.bias))
    }

    /// `y` plus the adapter's output.
    pub(crate) fn adapted(&self, x: &Tensor, y: Tensor, keys: Option<&[u64]>) -> Result<Tensor> {
        let Some(LowRank { a, b, scale, dropout }) = &self.low_rank else { return Ok(y) };
        let product = match dropout.mask(keys) {
            Some(mask) => a.forward(&dropout::forward(x, &mask)?, None)?,
            None => a.forward(x, None)?,
        };
        memory::scale(&product, *scale)?;
        Ok(b.forward_add(&product, &y, None)?)
    }
}

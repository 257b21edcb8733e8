//! Linear layers with a bias.

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::weight::Weight;

use crate::error::Result;

/// `x · Wᵀ + b`, plus the output of an adapter.
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Tensor,
    pub(crate) low_rank: Option<LowRank>,
}

/// LoRA: `s · (x · Aᵀ) · Bᵀ` (Hu et al., 2021), in f32 on the CPU.
pub(crate) struct LowRank {
    /// (rank, inputs).
    pub(crate) a: Weight,
    /// (outputs, rank).
    pub(crate) b: Weight,
    pub(crate) scale: f32,
}

impl Linear {
    pub(crate) fn new(weight: Weight, bias: Tensor) -> Self {
        Self { weight, bias, low_rank: None }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.adapted(x, self.weight.forward(x, Some(&self.bias))?)
    }

    pub(crate) fn forward_add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.adapted(x, self.weight.forward_add(x, y, Some(&self.bias))?)
    }

    /// The layer without its adapter, for products with several weights.
    pub(crate) fn parts(&self) -> (&Weight, Option<&Tensor>) {
        (&self.weight, Some(&self.bias))
    }

    /// `y` plus the adapter's output.
    pub(crate) fn adapted(&self, x: &Tensor, y: Tensor) -> Result<Tensor> {
        let Some(LowRank { a, b, scale }) = &self.low_rank else { return Ok(y) };
        let product = a.forward(x, None)?;
        memory::scale(&product, *scale)?;
        Ok(b.forward_add(&product, &y, None)?)
    }
}

//! Linear layers with a bias.

use candle_core::Tensor;
use embodied_r_kernels::weight::Weight;

use crate::error::Result;

/// `x · Wᵀ + b`.
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Tensor,
}

impl Linear {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.weight.forward(x, Some(&self.bias))?)
    }

    pub(crate) fn forward_add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok(self.weight.forward_add(x, y, Some(&self.bias))?)
    }

    pub(crate) fn parts(&self) -> (&Weight, Option<&Tensor>) {
        (&self.weight, Some(&self.bias))
    }
}

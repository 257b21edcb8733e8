//! A linear module for training: its weight, frozen or trained, and an optional LoRA adapter.

use candle_core::Tensor;
use embodied_r_kernels::dropout::{self, DropoutMask};
use embodied_r_kernels::{Precision, Result, linear, memory};

use super::Pass;
use super::gradients::LinearGradients;

/// `y = x · Wᵀ + b`, plus the output of an adapter.
#[derive(Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) low_rank: Option<LowRank>,
}

/// LoRA: `s · (dropout(x) · Aᵀ) · Bᵀ` (Hu et al., 2021). On the CPU its matmuls are f32 in every precision: they are
/// small, and the two tensors are trained. On a device they are in the activations' dtype, which is that of the tensors.
#[derive(Debug, Clone)]
pub(crate) struct LowRank {
    /// (rank, inputs).
    pub(crate) a: Tensor,
    /// (outputs, rank).
    pub(crate) b: Tensor,
    pub(crate) scale: f64,
    /// Dropout probability of the input in training.
    pub(crate) dropout: f64,
    /// Index of the module in the model, so that each module has its own dropout masks.
    pub(crate) module_index: u64,
}

impl Linear {
    /// `x · Wᵀ + b`, plus the adapter's output.
    ///
    /// # Shapes
    /// `x` (rows, inputs); gives (rows, outputs).
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let y = linear::forward(x, &self.weight, self.bias.as_ref(), pass.precision)?;
        self.adapted(x, y, pass)
    }

    /// `y + x · Wᵀ`, plus the adapter's output, in the memory of `y`: for modules without a bias.
    ///
    /// # Shapes
    /// `x` (rows, inputs), `y` and the result (rows, outputs).
    pub(crate) fn forward_add(&self, x: &Tensor, y: Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let y = linear::forward_add(x, &self.weight, y, pass.precision)?;
        self.adapted(x, y, pass)
    }

    fn adapted(&self, x: &Tensor, y: Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let Some(low_rank) = &self.low_rank else { return Ok(y) };
        let scaled = low_rank.scaled(&low_rank.dropped(x, pass)?)?;
        linear::forward_add(&scaled, &low_rank.b, y, Precision::F32)
    }

    /// The gradient of the input, added to `dx` if given; adds the gradients of trained tensors to `grads`.
    ///
    /// # Shapes
    /// `x`, `dx` and the result (rows, inputs), `dy` (rows, outputs).
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        dx: Option<Tensor>,
        grads: &LinearGradients,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let precision = pass.precision;
        let (d_weight, d_bias) = (grads.weight.as_ref(), grads.bias.as_ref());
        linear::backward_parameters(x, dy, d_weight, d_bias, precision)?;
        let dx = linear::backward_input(dy, &self.weight, dx, precision)?;
        match &self.low_rank {
            Some(low_rank) => low_rank.backward(x, dy, dx, grads, pass),
            None => Ok(dx),
        }
    }
}

impl LowRank {
    /// `dropout(x)` in training, else `x`.
    fn dropped(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        match self.mask(pass) {
            Some(mask) => dropout::forward(x, &mask),
            None => Ok(x.clone()),
        }
    }

    fn mask<'a>(&self, pass: &'a Pass<'_>) -> Option<DropoutMask<'a>> {
        let keys = pass.dropout.as_deref().filter(|_| self.dropout > 0.0)?;
        Some(DropoutMask { keys, site: self.module_index, p: self.dropout })
    }

    /// `s · x · Aᵀ`, (rows, rank).
    fn scaled(&self, x: &Tensor) -> Result<Tensor> {
        let product = linear::forward(x, &self.a, None, Precision::F32)?;
        self.scale(product)
    }

    fn scale(&self, x: Tensor) -> Result<Tensor> {
        memory::scale(&x, self.scale as f32)?;
        Ok(x)
    }

    /// `dropout(x)` and its product with `A` are cheap, so they are recomputed from the input.
    fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        dx: Tensor,
        grads: &LinearGradients,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let d_scaled = self.scale(linear::backward_input(dy, &self.b, None, Precision::F32)?)?;
        if grads.a.is_some() || grads.b.is_some() {
            let x = self.dropped(x, pass)?;
            if let Some(a) = &grads.a {
                linear::backward_weight(&x, &d_scaled, a, None, Precision::F32)?;
            }
            if let Some(b) = &grads.b {
                linear::backward_weight(&self.scaled(&x)?, dy, b, None, Precision::F32)?;
            }
        }
        let Some(mask) = self.mask(pass) else {
            return linear::backward_input(&d_scaled, &self.a, Some(dx), Precision::F32);
        };
        let dropped = linear::backward_input(&d_scaled, &self.a, None, Precision::F32)?;
        dropout::backward(&dropped, &mask, &dx)?;
        Ok(dx)
    }
}

//! The norms of a tower.

use candle_core::Tensor;
use embodied_r_kernels::layer_norm::{self, Affine};
use embodied_r_kernels::{Result, rms_norm};

use crate::layout::NormKind;

/// Epsilon of the norms.
const EPS: f64 = 1e-6;

/// A norm: its vectors (width), or their gradients.
pub(crate) enum Norm<T> {
    Rms(T),
    Layer(Affine<T>),
}

impl<T> Norm<T> {
    /// The norm of this name; `vector` gives its vectors by theirs.
    pub(crate) fn new<E>(
        kind: NormKind,
        name: &str,
        vector: impl Fn(&str) -> std::result::Result<T, E>,
    ) -> std::result::Result<Self, E> {
        let part = |part: &str| vector(&format!("{name}.{part}"));
        Ok(match kind {
            NormKind::Rms => Self::Rms(part("weight")?),
            NormKind::Layer => Self::Layer(Affine { weight: part("weight")?, bias: part("bias")? }),
        })
    }
}

impl Norm<Tensor> {
    /// The normalized rows, and the statistics that the backward takes.
    ///
    /// # Shapes
    /// `x` and the rows (rows, width); the statistics (rows, 1) or (rows, 2).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        match self {
            Self::Rms(weight) => {
                let normed = rms_norm::forward(x, weight, EPS)?;
                Ok((normed.y, normed.scale))
            }
            Self::Layer(affine) => {
                let normed = layer_norm::forward(x, of(affine), EPS)?;
                Ok((normed.y, normed.stats))
            }
        }
    }

    /// The normalized rows from the statistics, as [`Self::forward`] gives them, to the bit.
    pub(crate) fn recompute(&self, x: &Tensor, stats: &Tensor) -> Result<Tensor> {
        match self {
            Self::Rms(weight) => rms_norm::recompute(x, weight, stats),
            Self::Layer(affine) => layer_norm::recompute(x, of(affine), stats),
        }
    }

    /// Adds the gradient of the input to `dx`, and those of trained vectors to `grads`.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        stats: &Tensor,
        dy: &Tensor,
        dx: &Tensor,
        grads: &Norm<Option<Tensor>>,
    ) -> Result<()> {
        match (self, grads) {
            (Self::Rms(weight), Norm::Rms(d_weight)) => {
                rms_norm::backward(x, weight, stats, dy, dx, d_weight.as_ref())
            }
            (Self::Layer(affine), Norm::Layer(Affine { weight, bias })) => {
                let grads = Affine { weight: weight.as_ref(), bias: bias.as_ref() };
                layer_norm::backward(x, of(affine), stats, dy, dx, grads)
            }
            // Gradients have the layout of their weights.
            _ => Ok(()),
        }
    }
}

fn of(affine: &Affine<Tensor>) -> Affine<&Tensor> {
    Affine { weight: &affine.weight, bias: &affine.bias }
}

//! The linear modules of a layer for inference: a weight, and an optional LoRA adapter.

use candle_core::Tensor;
use embodied_r_kernels::attention::Heads;
use embodied_r_kernels::rope::{self, CosSinCache, Rotation};
use embodied_r_kernels::weight::{self, Weight};
use embodied_r_kernels::{embedding, memory, qkv};

use crate::error::Result;

/// The weights of one layer.
pub(super) type Layer = crate::layer::Layer<Linear, Tensor>;

/// `x · Wᵀ + b`, plus the output of an adapter.
pub(super) struct Linear {
    pub(super) weight: Weight,
    pub(super) bias: Option<Tensor>,
    pub(super) low_rank: Option<LowRank>,
}

/// LoRA: `s · (x · Aᵀ) · Bᵀ`. Its tensors are shared with the policy that trains them.
pub(super) struct LowRank {
    a: Weight,
    b: Weight,
    scale: f64,
}

/// The output of each module for `x`.
///
/// # Shapes
/// `x` (rows, inputs); gives (rows, outputs) of each module.
pub(super) fn forward_all<const N: usize>(
    x: &Tensor,
    modules: [&Linear; N],
) -> Result<[Tensor; N]> {
    let mut outputs =
        weight::forward_all(x, modules.map(|module| (&module.weight, module.bias.as_ref())))?;
    for (output, module) in outputs.iter_mut().zip(modules) {
        if let Some(low_rank) = &module.low_rank {
            *output = low_rank.forward_add(x, output)?;
        }
    }
    Ok(outputs)
}

/// The rows of a batch whose queries are computed, if not all.
pub(super) struct QueryRows<'a> {
    pub(super) rows: &'a [usize],
    pub(super) cos_sin: &'a CosSinCache,
}

/// Queries, keys and values as attention takes them.
pub(super) struct Projected {
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
}

impl Projected {
    /// Queries and keys as the backward takes them.
    pub(super) fn recorded(&self) -> [&Tensor; 2] {
        [&self.q, &self.k]
    }
}

/// Queries, keys and values of the normalized input `x`, rotated by `cos_sin`; queries of the rows `queries` alone, if
/// given.
///
/// # Shapes
/// `x` (rows, inputs).
pub(super) fn project_qkv(
    layer: &Layer,
    x: &Tensor,
    cos_sin: &CosSinCache,
    queries: Option<QueryRows<'_>>,
    heads: Heads,
) -> Result<Projected> {
    let Layer { q, k, v, .. } = layer;
    let modules = [q, k, v];
    let is_adapted = modules.iter().any(|module| module.low_rank.is_some());
    if !is_adapted && queries.is_none() {
        let parts = modules.map(|module| (&module.weight, module.bias.as_ref()));
        let [q, k, v] = qkv::forward(x, parts, cos_sin, heads)?;
        return Ok(Projected { q, k, v });
    }
    let ([q, k, v], of_queries) = match queries {
        None => (forward_all(x, modules)?, cos_sin),
        Some(QueryRows { rows, cos_sin }) => {
            let [k, v] = forward_all(x, [k, v])?;
            let [q] = forward_all(&embedding::gather(x, rows)?, [q])?;
            ([q, k, v], cos_sin)
        }
    };
    rope::rotate(&q, of_queries, Rotation::Forward)?;
    rope::rotate(&k, cos_sin, Rotation::Forward)?;
    Ok(Projected { q, k, v })
}

impl Linear {
    /// `x · Wᵀ`, plus the adapter's output: for modules without a bias.
    ///
    /// # Shapes
    /// `x` (rows, inputs); gives (rows, outputs).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = forward_all(x, [self])?;
        Ok(y)
    }

    /// `y + x · Wᵀ`, plus the adapter's output: for modules without a bias.
    ///
    /// # Shapes
    /// `x` (rows, inputs), `y` and the result (rows, outputs).
    pub(super) fn forward_add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let sum = self.weight.forward_add(x, y, None)?;
        match &self.low_rank {
            Some(low_rank) => low_rank.forward_add(x, &sum),
            None => Ok(sum),
        }
    }
}

impl LowRank {
    /// With `a` (rank, inputs) and `b` (outputs, rank).
    pub(super) fn new(a: &Tensor, b: &Tensor, scale: f64) -> Result<Self> {
        Ok(Self { a: Weight::f32(a)?, b: Weight::f32(b)?, scale })
    }

    fn forward_add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let product = self.a.forward(x, None)?;
        memory::scale(&product, self.scale as f32)?;
        Ok(self.b.forward_add(&product, y, None)?)
    }
}

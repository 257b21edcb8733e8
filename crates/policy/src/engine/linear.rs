//! The linear modules of a layer for inference: a weight, and an optional LoRA adapter.

use candle_core::Tensor;
use embodied_r_kernels::attention::Heads;
use embodied_r_kernels::qkv;
use embodied_r_kernels::qkv::head_norm::{self, HeadNorm};
use embodied_r_kernels::qkv::rotary::{Qkv, Rotary};
use embodied_r_kernels::rope::CosSinCache;
use embodied_r_kernels::weight::{self, Weight};
use embodied_r_kernels::{embedding, memory};

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

/// What the layers of a step share.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) heads: Heads,
    /// Epsilon of the norms.
    pub(super) eps: f64,
    pub(super) cos_sin: &'a CosSinCache,
    /// Whether activations are recorded for the backward.
    pub(super) records: bool,
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
    /// Queries and keys before norms over their heads.
    unnormed: Option<[Tensor; 2]>,
}

impl Projected {
    /// Queries and keys as the backward takes them.
    pub(super) fn recorded(&self) -> [&Tensor; 2] {
        self.unnormed.as_ref().map_or([&self.q, &self.k], |unnormed| unnormed.each_ref())
    }
}

/// Queries, keys and values of the normalized input `x`; queries of the rows `queries` alone, if given.
///
/// # Shapes
/// `x` (rows, inputs).
pub(super) fn project_qkv(
    layer: &Layer,
    x: &Tensor,
    pass: Pass<'_>,
    queries: Option<QueryRows<'_>>,
) -> Result<Projected> {
    let Layer { q, k, v, qk_norms, .. } = layer;
    let Pass { heads, eps, cos_sin, records } = pass;
    let norm = |weight| HeadNorm { weight, eps };
    let norms = qk_norms.as_ref().map(|norms| norms.each_ref().map(norm));
    let modules = [q, k, v];
    let is_adapted = modules.iter().any(|module| module.low_rank.is_some());
    if !is_adapted && queries.is_none() {
        let parts = modules.map(|module| (&module.weight, module.bias.as_ref()));
        let rotary = Rotary { norms, cos_sin, keeps_unnormed: records };
        let Qkv { q, k, v, unnormed } = qkv::forward_normed(x, parts, rotary, heads)?;
        return Ok(Projected { q, k, v, unnormed });
    }
    let ([q, k, v], of_queries) = match queries {
        None => (forward_all(x, modules)?, cos_sin),
        Some(QueryRows { rows, cos_sin }) => {
            let [k, v] = forward_all(x, [k, v])?;
            let [q] = forward_all(&embedding::gather(x, rows)?, [q])?;
            ([q, k, v], cos_sin)
        }
    };
    let unnormed = norms.map(|_| [q.clone(), k.clone()]);
    let [q_norm, k_norm] = norms.map_or([None; 2], |norms| norms.map(Some));
    let q = head_norm::forward(&q, q_norm, of_queries)?.y;
    let k = head_norm::forward(&k, k_norm, cos_sin)?.y;
    Ok(Projected { q, k, v, unnormed })
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

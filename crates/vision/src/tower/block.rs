//! A block of the vision tower.

use candle_core::Tensor;
use embodied_r_kernels::attention::{self, AttentionOutput};
use embodied_r_kernels::gelu::{self, Gelu};
use embodied_r_kernels::rope::{self, Rotation};
use embodied_r_kernels::{qkv, swiglu, weight};

use super::Pass;
use super::modules::{Block, FeedForward};
use crate::error::Result;
use crate::linear::Linear;

/// What a block's backward needs besides the input.
pub(crate) struct Activations {
    pub(crate) attention: Attention,
    /// The residual stream after attention (patches, hidden).
    pub(crate) middle: Tensor,
    pub(crate) feed_forward: FeedForwardActivations,
}

/// The activations of attention.
pub(crate) struct Attention {
    /// The norm's statistics.
    pub(crate) stats: Tensor,
    /// Queries, keys and values after the rotary embedding, each (patches, hidden).
    pub(crate) qkv: [Tensor; 3],
    pub(crate) attended: AttentionOutput,
}

/// The activations of the feed-forward layer.
pub(crate) struct FeedForwardActivations {
    /// The norm's statistics.
    pub(crate) stats: Tensor,
    /// The outputs of its first layers (patches, inner size): gate and up projection, or one.
    pub(crate) wide: Vec<Tensor>,
}

impl Block<Linear, Tensor> {
    /// # Shapes
    /// `x` and the result (patches, hidden).
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass, is_full: bool) -> Result<Tensor> {
        let Attention { attended, .. } = self.attend(&x, pass, is_full)?;
        let middle = self.o.forward_add(&attended.out, &x, pass.keys())?;
        drop((attended, x));
        let FeedForwardActivations { wide, .. } = self.widened(&middle, pass)?;
        self.feed_forward.forward_add(&wide, &middle, pass)
    }

    /// [`Self::forward`] with its activations.
    pub(crate) fn forward_saving(
        &self,
        x: &Tensor,
        pass: &Pass,
        is_full: bool,
    ) -> Result<(Tensor, Activations)> {
        let activations = self.activations(x, pass, is_full)?;
        let wide = &activations.feed_forward.wide;
        let y = self.feed_forward.forward_add(wide, &activations.middle, pass)?;
        Ok((y, activations))
    }

    /// The activations alone, without the last layer: for recomputation.
    pub(crate) fn activations(
        &self,
        x: &Tensor,
        pass: &Pass,
        is_full: bool,
    ) -> Result<Activations> {
        let attention = self.attend(x, pass, is_full)?;
        let middle = self.o.forward_add(&attention.attended.out, x, pass.keys())?;
        let feed_forward = self.widened(&middle, pass)?;
        Ok(Activations { attention, middle, feed_forward })
    }

    fn attend(&self, x: &Tensor, pass: &Pass, is_full: bool) -> Result<Attention> {
        let (normed, stats) = self.attention_norm.forward(x)?;
        let [q, k, v] = self.project(&normed, pass)?;
        drop(normed);
        let attended = attention::forward(&q, &k, &v, pass.spans(is_full), pass.pattern())?;
        Ok(Attention { stats, qkv: [q, k, v], attended })
    }

    /// Queries, keys and values after the rotary embedding.
    fn project(&self, x: &Tensor, pass: &Pass) -> Result<[Tensor; 3]> {
        let [of_q, of_k, of_v] = &self.qkv;
        let weights = self.qkv.each_ref().map(Linear::parts);
        if self.qkv.iter().all(|linear| linear.low_rank.is_none()) {
            return Ok(qkv::forward(x, weights, &pass.cos_sin, pass.heads)?);
        }
        // The adapter's output is rotated too.
        let [q, k, v] = weight::forward_all(x, weights)?;
        let keys = pass.keys();
        let qkv = [of_q.adapted(x, q, keys)?, of_k.adapted(x, k, keys)?, of_v.adapted(x, v, keys)?];
        for rotated in &qkv[..2] {
            rope::rotate(rotated, &pass.cos_sin, Rotation::Forward)?;
        }
        Ok(qkv)
    }

    /// The norm and the first layers of the feed-forward layer.
    fn widened(&self, middle: &Tensor, pass: &Pass) -> Result<FeedForwardActivations> {
        let (normed, stats) = self.feed_forward_norm.forward(middle)?;
        let keys = pass.keys();
        let wide = match &self.feed_forward {
            FeedForward::Gated { gate: of_gate, up: of_up, .. } => {
                let weights = [of_gate.parts(), of_up.parts()];
                let [gate, up] = weight::forward_all(&normed, weights)?;
                vec![of_gate.adapted(&normed, gate, keys)?, of_up.adapted(&normed, up, keys)?]
            }
            FeedForward::Plain { first, .. } => vec![first.forward(&normed, keys)?],
        };
        Ok(FeedForwardActivations { stats, wide })
    }
}

impl FeedForward<Linear> {
    /// The last layer's output of what the first ones gave, added to `y`.
    fn forward_add(&self, wide: &[Tensor], y: &Tensor, pass: &Pass) -> Result<Tensor> {
        let last = match self {
            Self::Gated { down, .. } => down,
            Self::Plain { second, .. } => second,
        };
        last.forward_add(&activated(wide)?, y, pass.keys())
    }
}

/// The input of a feed-forward layer's last layer: `silu(gate) · up`, or GELU of one output.
pub(crate) fn activated(wide: &[Tensor]) -> Result<Tensor> {
    Ok(match wide {
        [gate, up] => swiglu::forward(gate, up)?,
        _ => gelu::forward(&wide[0], Gelu::Tanh)?,
    })
}

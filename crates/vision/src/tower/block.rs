//! A block of the vision tower.

use candle_core::Tensor;
use embodied_r_kernels::attention::{self, AttentionOutput};
use embodied_r_kernels::rope::{self, Rotation};
use embodied_r_kernels::{qkv, rms_norm, swiglu, weight};

use super::{EPS, Pass};
use crate::error::Result;
use crate::linear::Linear;

/// A block's weights.
pub(crate) struct Block {
    pub(super) attention_norm: Tensor,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    pub(super) feed_forward_norm: Tensor,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// What a block's backward needs besides the input.
pub(crate) struct Activations {
    pub(crate) attention: Attention,
    /// The residual stream after attention (patches, hidden).
    pub(crate) middle: Tensor,
    pub(crate) feed_forward: FeedForward,
}

/// The activations of attention.
pub(crate) struct Attention {
    /// The norm's scale of each row.
    pub(crate) scale: Tensor,
    /// Queries, keys and values after the rotary embedding, each (patches, hidden).
    pub(crate) qkv: [Tensor; 3],
    pub(crate) attended: AttentionOutput,
}

/// The activations of the feed-forward layer.
pub(crate) struct FeedForward {
    /// The norm's scale of each row.
    pub(crate) scale: Tensor,
    /// (patches, inner size).
    pub(crate) gate: Tensor,
    /// (patches, inner size).
    pub(crate) up: Tensor,
}

impl Block {
    /// # Shapes
    /// `x` and the result (patches, hidden).
    pub(crate) fn forward(&self, x: Tensor, pass: &Pass, is_full: bool) -> Result<Tensor> {
        let Attention { attended, .. } = self.attend(&x, pass, is_full)?;
        let middle = self.o.forward_add(&attended.out, &x, pass.keys())?;
        drop((attended, x));
        let FeedForward { gate, up, .. } = self.feed_forward(&middle, pass)?;
        self.down.forward_add(&swiglu::forward(&gate, &up)?, &middle, pass.keys())
    }

    /// [`Self::forward`] with its activations.
    pub(crate) fn forward_saving(
        &self,
        x: &Tensor,
        pass: &Pass,
        is_full: bool,
    ) -> Result<(Tensor, Activations)> {
        let activations = self.activations(x, pass, is_full)?;
        let FeedForward { gate, up, .. } = &activations.feed_forward;
        let product = swiglu::forward(gate, up)?;
        let y = self.down.forward_add(&product, &activations.middle, pass.keys())?;
        Ok((y, activations))
    }

    /// The activations alone, without the down projection: for recomputation.
    pub(crate) fn activations(
        &self,
        x: &Tensor,
        pass: &Pass,
        is_full: bool,
    ) -> Result<Activations> {
        let attention = self.attend(x, pass, is_full)?;
        let middle = self.o.forward_add(&attention.attended.out, x, pass.keys())?;
        let feed_forward = self.feed_forward(&middle, pass)?;
        Ok(Activations { attention, middle, feed_forward })
    }

    fn attend(&self, x: &Tensor, pass: &Pass, is_full: bool) -> Result<Attention> {
        let normed = rms_norm::forward(x, &self.attention_norm, EPS)?;
        let [q, k, v] = self.project(&normed.y, pass)?;
        let scale = normed.scale;
        drop(normed.y);
        let attended = attention::forward(&q, &k, &v, pass.spans(is_full), pass.pattern())?;
        Ok(Attention { scale, qkv: [q, k, v], attended })
    }

    /// Queries, keys and values after the rotary embedding.
    fn project(&self, x: &Tensor, pass: &Pass) -> Result<[Tensor; 3]> {
        let linears = [&self.q, &self.k, &self.v];
        let weights = linears.map(Linear::parts);
        if linears.iter().all(|linear| linear.low_rank.is_none()) {
            return Ok(qkv::forward(x, weights, &pass.cos_sin, pass.heads)?);
        }
        // The adapter's output is rotated too.
        let [q, k, v] = weight::forward_all(x, weights)?;
        let keys = pass.keys();
        let qkv =
            [self.q.adapted(x, q, keys)?, self.k.adapted(x, k, keys)?, self.v.adapted(x, v, keys)?];
        for rotated in &qkv[..2] {
            rope::rotate(rotated, &pass.cos_sin, Rotation::Forward)?;
        }
        Ok(qkv)
    }

    fn feed_forward(&self, middle: &Tensor, pass: &Pass) -> Result<FeedForward> {
        let normed = rms_norm::forward(middle, &self.feed_forward_norm, EPS)?;
        let weights = [self.gate.parts(), self.up.parts()];
        let [gate, up] = weight::forward_all(&normed.y, weights)?;
        let keys = pass.keys();
        let gate = self.gate.adapted(&normed.y, gate, keys)?;
        let up = self.up.adapted(&normed.y, up, keys)?;
        Ok(FeedForward { scale: normed.scale, gate, up })
    }
}

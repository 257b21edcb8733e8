//! One decoder layer, forward and backward.

use candle_core::Tensor;
use embodied_r_kernels::attention::{self, Attended, Pattern};
use embodied_r_kernels::rms_norm::{self, Normed};
use embodied_r_kernels::rope::{self, Turn};
use embodied_r_kernels::{Result, swiglu};

use super::gradients::LayerGradients;
use super::{Layer, Linear, Pass};

/// Queries, keys and values, turned by their positions.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

/// What a layer's backward needs of its forward, beside the input.
pub(crate) struct Activations {
    input_normed: Normed,
    projected: Projected,
    attended: Attended,
    middle: Tensor,
    post_normed: Normed,
    gate: Tensor,
    up: Tensor,
    product: Tensor,
}

impl Activations {
    /// Numbers kept for each token, for a memory estimate.
    pub(crate) fn per_token(
        hidden: usize,
        queries: usize,
        keys: usize,
        feed_forward: usize,
    ) -> usize {
        3 * hidden + 2 * queries + 2 * keys + 3 * feed_forward
    }
}

/// The normalised input, and the queries, keys and values made of it.
///
/// # Shapes
/// `x` (tokens, hidden).
fn attention_input(layer: &Layer, x: &Tensor, pass: &Pass<'_>) -> Result<(Normed, Projected)> {
    let normed = rms_norm::forward(x, &layer.input_norm, pass.eps)?;
    let project = |by: &Linear| by.forward(&normed.y, pass);
    let projected =
        Projected { q: project(&layer.q)?, k: project(&layer.k)?, v: project(&layer.v)? };
    rope::rotate(&projected.q, &pass.angles, Turn::Forward)?;
    rope::rotate(&projected.k, &pass.angles, Turn::Forward)?;
    Ok((normed, projected))
}

/// The feed-forward half: its output, and what its backward needs.
fn feed_forward(layer: &Layer, middle: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, FeedForward)> {
    let normed = rms_norm::forward(middle, &layer.post_norm, pass.eps)?;
    let gate = layer.gate.forward(&normed.y, pass)?;
    let up = layer.up.forward(&normed.y, pass)?;
    let product = swiglu::forward(&gate, &up)?;
    let y = layer.down.forward_add(&product, middle.copy()?, pass)?;
    Ok((y, FeedForward { normed, gate, up, product }))
}

/// What the feed-forward half keeps.
struct FeedForward {
    normed: Normed,
    gate: Tensor,
    up: Tensor,
    product: Tensor,
}

impl Layer {
    fn pattern(&self, pass: &Pass<'_>) -> Pattern {
        Pattern { heads: pass.heads, window: self.window }
    }

    /// The layer's output, and what its backward needs.
    ///
    /// # Shapes
    /// `x` and the output (tokens, hidden).
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Activations)> {
        let (input_normed, projected) = attention_input(self, x, pass)?;
        let Projected { q, k, v } = &projected;
        let attended = attention::forward(q, k, v, pass.spans, self.pattern(pass))?;
        let middle = self.o.forward_add(&attended.out, x.copy()?, pass)?;
        let (y, FeedForward { normed, gate, up, product }) = feed_forward(self, &middle, pass)?;
        let kept = Activations {
            input_normed,
            projected,
            attended,
            middle,
            post_normed: normed,
            gate,
            up,
            product,
        };
        Ok((y, kept))
    }

    /// The gradient of the layer's input from that of its output; adds those of the tensors that are
    /// trained to `grads`.
    ///
    /// # Shapes
    /// `x`, `dy` and the result (tokens, hidden).
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        kept: Activations,
        dy: Tensor,
        grads: &LayerGradients,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let d_product = self.down.backward(&kept.product, &dy, None, &grads.down, pass)?;
        let (d_gate, d_up) = swiglu::backward(&kept.gate, &kept.up, &d_product)?;
        let normed = &kept.post_normed.y;
        let d_normed = self.gate.backward(normed, &d_gate, None, &grads.gate, pass)?;
        let d_normed = self.up.backward(normed, &d_up, Some(d_normed), &grads.up, pass)?;
        // From here on `dy` is the gradient of the residual stream.
        rms_norm::backward(
            &kept.middle,
            &self.post_norm,
            &kept.post_normed.scale,
            &d_normed,
            &dy,
            grads.post_norm.as_ref(),
        )?;
        let d_attended = self.o.backward(&kept.attended.out, &dy, None, &grads.o, pass)?;
        let Projected { q, k, v } = &kept.projected;
        let pattern = self.pattern(pass);
        let d = attention::backward((q, k, v), &kept.attended, &d_attended, pass.spans, pattern)?;
        rope::rotate(&d.q, &pass.angles, Turn::Backward)?;
        rope::rotate(&d.k, &pass.angles, Turn::Backward)?;
        let normed = &kept.input_normed.y;
        let d_normed = self.q.backward(normed, &d.q, None, &grads.q, pass)?;
        let d_normed = self.k.backward(normed, &d.k, Some(d_normed), &grads.k, pass)?;
        let d_normed = self.v.backward(normed, &d.v, Some(d_normed), &grads.v, pass)?;
        let scale = &kept.input_normed.scale;
        let d_weight = grads.input_norm.as_ref();
        rms_norm::backward(x, &self.input_norm, scale, &d_normed, &dy, d_weight)?;
        Ok(dy)
    }
}

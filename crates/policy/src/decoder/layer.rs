//! One decoder layer, forward and backward.

use candle_core::Tensor;
use embodied_r_kernels::attention::{self, Attended, Pattern};
use embodied_r_kernels::rms_norm::{self, Normed};
use embodied_r_kernels::rope::{self, Turn};
use embodied_r_kernels::{Result, linear, memory, swiglu};

use super::{Layer, Pass};

/// Queries, keys and values, turned by their positions.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

/// A prompt's keys and values in one layer, turned by their positions, and what the completions behind
/// it add to their gradients.
#[derive(Clone)]
pub(crate) struct PromptKv {
    k: Tensor,
    v: Tensor,
    dk: Tensor,
    dv: Tensor,
}

/// What a layer's keys and values have to do with those of other passes.
#[derive(Clone, Copy)]
pub(crate) enum Sharing<'a> {
    /// Nothing.
    Alone,
    /// The tokens are completions behind this prompt, and add to its gradients.
    Behind(&'a PromptKv),
    /// The tokens are this prompt, to whose gradients others have added.
    Ahead(&'a PromptKv),
}

impl Sharing<'_> {
    /// The keys and values that the tokens see.
    fn joined(self, own: &Projected) -> Result<(Tensor, Tensor)> {
        Ok(match self {
            Self::Behind(prompt) => {
                (memory::stacked(&[&prompt.k, &own.k])?, memory::stacked(&[&prompt.v, &own.v])?)
            }
            Self::Alone | Self::Ahead(_) => (own.k.clone(), own.v.clone()),
        })
    }

    /// The gradients of the tokens' own queries, keys and values.
    fn settled(self, d: attention::Gradients) -> Result<attention::Gradients> {
        match self {
            Self::Alone => Ok(d),
            Self::Behind(prompt) => {
                let (ahead, all) = (prompt.k.dims()[0], d.k.dims()[0]);
                memory::add(&prompt.dk, &memory::rows(&d.k, 0..ahead)?)?;
                memory::add(&prompt.dv, &memory::rows(&d.v, 0..ahead)?)?;
                let own = |x: &Tensor| memory::rows(x, ahead..all);
                Ok(attention::Gradients { k: own(&d.k)?, v: own(&d.v)?, q: d.q })
            }
            Self::Ahead(prompt) => {
                memory::add(&d.k, &prompt.dk)?;
                memory::add(&d.v, &prompt.dv)?;
                Ok(d)
            }
        }
    }
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
    /// The keys and values, for completions in later passes.
    pub(crate) fn prompt_kv(&self) -> Result<PromptKv> {
        let Projected { k, v, .. } = &self.projected;
        let zeros = |x: &Tensor| memory::zeros(x.dims());
        Ok(PromptKv { k: k.clone(), v: v.clone(), dk: zeros(k)?, dv: zeros(v)? })
    }

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
    let project = |by: &super::Linear| {
        linear::forward(&normed.y, &by.weight, by.bias.as_ref(), pass.precision)
    };
    let projected =
        Projected { q: project(&layer.q)?, k: project(&layer.k)?, v: project(&layer.v)? };
    rope::rotate(&projected.q, &pass.angles, Turn::Forward)?;
    rope::rotate(&projected.k, &pass.angles, Turn::Forward)?;
    Ok((normed, projected))
}

/// The feed-forward half: its output, and what its backward needs.
fn feed_forward(layer: &Layer, middle: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, FeedForward)> {
    let precision = pass.precision;
    let normed = rms_norm::forward(middle, &layer.post_norm, pass.eps)?;
    let gate = linear::forward(&normed.y, &layer.gate, None, precision)?;
    let up = linear::forward(&normed.y, &layer.up, None, precision)?;
    let product = swiglu::forward(&gate, &up)?;
    let y = linear::forward_add(&product, &layer.down, middle.copy()?, precision)?;
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
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        sharing: Sharing<'_>,
    ) -> Result<(Tensor, Activations)> {
        let (input_normed, projected) = attention_input(self, x, pass)?;
        let (k, v) = sharing.joined(&projected)?;
        let attended = attention::forward(&projected.q, &k, &v, pass.spans, self.pattern(pass))?;
        let middle = linear::forward_add(&attended.out, &self.o, x.copy()?, pass.precision)?;
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

    /// The gradient of the layer's input from that of its output; adds the tensors' to `grads`.
    ///
    /// # Shapes
    /// `x`, `dy` and the result (tokens, hidden).
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        kept: Activations,
        dy: Tensor,
        grads: &Layer,
        pass: &Pass<'_>,
        sharing: Sharing<'_>,
    ) -> Result<Tensor> {
        let precision = pass.precision;
        let d_product = linear::backward_input(&dy, &self.down, None, precision)?;
        linear::backward_weight(&kept.product, &dy, &grads.down, None, precision)?;
        let (d_gate, d_up) = swiglu::backward(&kept.gate, &kept.up, &d_product)?;
        let d_normed = linear::backward_input(&d_gate, &self.gate, None, precision)?;
        let d_normed = linear::backward_input(&d_up, &self.up, Some(d_normed), precision)?;
        linear::backward_weight(&kept.post_normed.y, &d_gate, &grads.gate, None, precision)?;
        linear::backward_weight(&kept.post_normed.y, &d_up, &grads.up, None, precision)?;
        // From here on `dy` is the gradient of the residual stream.
        rms_norm::backward(
            &kept.middle,
            &self.post_norm,
            &kept.post_normed.scale,
            &d_normed,
            &dy,
            &grads.post_norm,
        )?;
        let d_attended = linear::backward_input(&dy, &self.o, None, precision)?;
        linear::backward_weight(&kept.attended.out, &dy, &grads.o, None, precision)?;
        let (k, v) = sharing.joined(&kept.projected)?;
        let inputs = (&kept.projected.q, &k, &v);
        let pattern = self.pattern(pass);
        let d = attention::backward(inputs, &kept.attended, &d_attended, pass.spans, pattern)?;
        let d = sharing.settled(d)?;
        rope::rotate(&d.q, &pass.angles, Turn::Backward)?;
        rope::rotate(&d.k, &pass.angles, Turn::Backward)?;
        let mut d_normed = None;
        for (dy, by, grad) in
            [(&d.q, &self.q, &grads.q), (&d.k, &self.k, &grads.k), (&d.v, &self.v, &grads.v)]
        {
            d_normed = Some(linear::backward_input(dy, &by.weight, d_normed, precision)?);
            linear::backward_weight(
                &kept.input_normed.y,
                dy,
                &grad.weight,
                grad.bias.as_ref(),
                precision,
            )?;
        }
        if let Some(d_normed) = d_normed {
            let scale = &kept.input_normed.scale;
            rms_norm::backward(x, &self.input_norm, scale, &d_normed, &dy, &grads.input_norm)?;
        }
        Ok(dy)
    }
}

//! One decoder layer, forward and backward.

use candle_core::Tensor;
use embodied_r_kernels::attention::{self, Attended, Pattern};
use embodied_r_kernels::rms_norm::{self, Normed};
use embodied_r_kernels::rope::{self, Turn};
use embodied_r_kernels::{Result, embedding, memory, swiglu};

use super::gradients::LayerGradients;
use super::{Ends, Layer, Pass};

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

impl PromptKv {
    /// To whose gradients nothing has been added yet.
    pub(crate) fn new(k: Tensor, v: Tensor) -> Result<Self> {
        let zeros = |x: &Tensor| memory::zeros(x.dims(), x.device());
        let (dk, dv) = (zeros(&k)?, zeros(&v)?);
        Ok(Self { k, v, dk, dv })
    }
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
    input_scale: Tensor,
    projected: Projected,
    attended: Attended,
    middle: Tensor,
    post_scale: Tensor,
    gate: Tensor,
    up: Tensor,
    /// What the rest soon gives again.
    soon: Option<Soon>,
}

/// What takes a pass over memory to compute, and no product.
struct Soon {
    input_normed: Tensor,
    post_normed: Tensor,
    product: Tensor,
}

impl Activations {
    /// Those of a pass that was made elsewhere. Of all tokens: the scale of the first norm, keys and values. Of those
    /// that were computed to their end: queries, attention's output and log-sum-exp, the residual stream behind it,
    /// the scale of the second norm, and the two halves of what feeds the last product.
    pub(crate) fn new(
        [input_scale, k, v]: [Tensor; 3],
        [q, out, log_sum_exp, middle, post_scale, gate, up]: [Tensor; 7],
    ) -> Self {
        let attended = Attended { out, log_sum_exp };
        let projected = Projected { q, k, v };
        Self { input_scale, projected, attended, middle, post_scale, gate, up, soon: None }
    }

    /// The keys and values, for completions in later passes.
    pub(crate) fn prompt_kv(&self) -> Result<PromptKv> {
        let Projected { k, v, .. } = &self.projected;
        PromptKv::new(k.clone(), v.clone())
    }

    /// Without what a backward that comes later had better compute again.
    pub(crate) fn slim(self) -> Self {
        Self { soon: None, ..self }
    }

    /// Numbers kept for each token, for a memory estimate.
    pub(crate) fn per_token(
        hidden: usize,
        queries: usize,
        keys: usize,
        feed_forward: usize,
    ) -> usize {
        hidden + 2 * queries + 2 * keys + 2 * feed_forward
    }

    /// Numbers that exist for each token while a layer is computed, beside those.
    pub(crate) fn more_per_token(hidden: usize, feed_forward: usize) -> usize {
        2 * hidden + feed_forward
    }
}

/// Queries of the rows that are computed to their end, and the keys and values of all, of the normalised
/// input.
///
/// # Shapes
/// `normed` (tokens, hidden).
fn projected(
    layer: &Layer,
    normed: &Tensor,
    pass: &Pass<'_>,
    ends: Option<&Ends<'_>>,
) -> Result<Projected> {
    let last = ends.map_or(pass, |ends| &ends.pass);
    let q = layer.q.forward(&picked(normed, ends)?, last)?;
    let k = layer.k.forward(normed, pass)?;
    let v = layer.v.forward(normed, pass)?;
    rope::rotate(&q, &last.angles, Turn::Forward)?;
    rope::rotate(&k, &pass.angles, Turn::Forward)?;
    Ok(Projected { q, k, v })
}

/// The rows of `x` that are computed to their end.
fn picked(x: &Tensor, ends: Option<&Ends<'_>>) -> Result<Tensor> {
    match ends {
        Some(ends) => embedding::gather(x, &ends.rows),
        None => Ok(x.clone()),
    }
}

/// Those rows among all `rows`, and 0 in the others.
fn spread(x: Tensor, rows: usize, ends: Option<&Ends<'_>>) -> Result<Tensor> {
    let Some(ends) = ends else { return Ok(x) };
    let all = memory::zero_rows(rows, &x)?;
    embedding::scatter_add(&all, &ends.rows, &x)?;
    Ok(all)
}

/// The feed-forward half: its output, and what its backward needs.
fn feed_forward(layer: &Layer, middle: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, FeedForward)> {
    let normed = rms_norm::forward(middle, &layer.post_norm, pass.eps)?;
    let gate = layer.gate.forward(&normed.y, pass)?;
    let up = layer.up.forward(&normed.y, pass)?;
    let product = swiglu::forward(&gate, &up)?;
    let y = layer.down.forward_add(&product, memory::copy(middle)?, pass)?;
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
        Pattern { heads: pass.heads, window: self.window, causal: true }
    }

    /// The layer's output, and what its backward needs; the output of `ends` alone, if there are some.
    ///
    /// # Shapes
    /// `x` (tokens, hidden) and the output (ends or tokens, hidden).
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        ends: Option<&Ends<'_>>,
        sharing: Sharing<'_>,
    ) -> Result<(Tensor, Activations)> {
        let input_normed = rms_norm::forward(x, &self.input_norm, pass.eps)?;
        let projected = projected(self, &input_normed.y, pass, ends)?;
        let residual = match ends {
            Some(_) => picked(x, ends)?,
            None => memory::copy(x)?,
        };
        let pass = ends.map_or(pass, |ends| &ends.pass);
        let (k, v) = sharing.joined(&projected)?;
        let attended = attention::forward(&projected.q, &k, &v, &pass.spans, self.pattern(pass))?;
        let middle = self.o.forward_add(&attended.out, residual, pass)?;
        let (y, FeedForward { normed, gate, up, product }) = feed_forward(self, &middle, pass)?;
        let soon = Soon { input_normed: input_normed.y, post_normed: normed.y, product };
        let kept = Activations {
            input_scale: input_normed.scale,
            projected,
            attended,
            middle,
            post_scale: normed.scale,
            gate,
            up,
            soon: Some(soon),
        };
        Ok((y, kept))
    }

    /// The gradient of the layer's input from that of its output; adds those of the tensors that are
    /// trained to `grads`.
    ///
    /// # Shapes
    /// `x` and the result (tokens, hidden), `dy` as the output.
    pub(crate) fn backward(
        &self,
        x: &Tensor,
        kept: Activations,
        dy: Tensor,
        grads: &LayerGradients,
        (all, ends): (&Pass<'_>, Option<&Ends<'_>>),
        sharing: Sharing<'_>,
    ) -> Result<Tensor> {
        let (pass, all_rows) = (ends.map_or(all, |ends| &ends.pass), x.dims()[0]);
        // Whatever has had its turn is let go: the peak of a long batch lies here.
        let Activations { input_scale, projected, attended, middle, post_scale, gate, up, soon } =
            kept;
        let (input_normed, post_normed, product) = match soon {
            Some(soon) => (Some(soon.input_normed), Some(soon.post_normed), soon.product),
            None => (None, None, swiglu::forward(&gate, &up)?),
        };
        let normed = |normed: Option<Tensor>, x: &Tensor, weight: &Tensor, scale: &Tensor| {
            normed.map_or_else(|| rms_norm::again(x, weight, scale), Ok)
        };
        let d_product = self.down.backward(&product, &dy, None, &grads.down, pass)?;
        drop(product);
        let (d_gate, d_up) = swiglu::backward(gate, up, &d_product)?;
        drop(d_product);
        let post_normed = normed(post_normed, &middle, &self.post_norm, &post_scale)?;
        let d_normed = self.gate.backward(&post_normed, &d_gate, None, &grads.gate, pass)?;
        drop(d_gate);
        let d_normed = self.up.backward(&post_normed, &d_up, Some(d_normed), &grads.up, pass)?;
        drop((d_up, post_normed));
        // From here on `dy` is the gradient of the residual stream.
        let d_weight = grads.post_norm.as_ref();
        rms_norm::backward(&middle, &self.post_norm, &post_scale, &d_normed, &dy, d_weight)?;
        drop((middle, d_normed));
        let d_attended = self.o.backward(&attended.out, &dy, None, &grads.o, pass)?;
        let (k, v) = sharing.joined(&projected)?;
        let (inputs, pattern) = ((&projected.q, &k, &v), self.pattern(pass));
        let d = attention::backward(inputs, &attended, &d_attended, &pass.spans, pattern)?;
        drop((projected, k, v, attended, d_attended));
        let d = sharing.settled(d)?;
        rope::rotate(&d.q, &pass.angles, Turn::Backward)?;
        rope::rotate(&d.k, &all.angles, Turn::Backward)?;
        let normed = normed(input_normed, x, &self.input_norm, &input_scale)?;
        let d_normed = self.q.backward(&picked(&normed, ends)?, &d.q, None, &grads.q, pass)?;
        let (d_normed, dy) = (spread(d_normed, all_rows, ends)?, spread(dy, all_rows, ends)?);
        let d_normed = self.k.backward(&normed, &d.k, Some(d_normed), &grads.k, all)?;
        let d_normed = self.v.backward(&normed, &d.v, Some(d_normed), &grads.v, all)?;
        let d_weight = grads.input_norm.as_ref();
        rms_norm::backward(x, &self.input_norm, &input_scale, &d_normed, &dy, d_weight)?;
        Ok(dy)
    }
}

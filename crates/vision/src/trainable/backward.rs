//! The backward of blocks and merger.

use candle_core::Tensor;
use embodied_r_kernels::dropout::{self, DropoutMask};
use embodied_r_kernels::gelu::{self, Gelu};
use embodied_r_kernels::rope::{self, Rotation};
use embodied_r_kernels::{attention, linear, memory, swiglu};
use embodied_r_policy::Precision;

use super::modules::Linear;
use crate::error::Result;
use crate::tower::{
    Activations, Attention, Block, Dropout, FeedForward, FeedForwardActivations, Merger,
    MergerActivations, Pass, activated, joined,
};

/// How products are computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numerics<'a> {
    pub(super) precision: Precision,
    /// Scale of the adapters' output.
    pub(super) lora_scale: f32,
    /// Probability that an input of an adapter is dropped.
    pub(super) lora_dropout: f64,
    /// Dropout keys of the rows, if inputs of adapters are dropped.
    pub(super) keys: Option<&'a [u64]>,
}

impl Linear<Tensor> {
    /// The gradient of the input, added to `dx` if given; adds the gradients of trained tensors to `grads`.
    ///
    /// # Shapes
    /// `x`, `dx` and the result (rows, inputs), `dy` (rows, outputs).
    fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        dx: Option<Tensor>,
        grads: &Linear<Option<Tensor>>,
        numerics: Numerics<'_>,
    ) -> Result<Tensor> {
        let Numerics { precision, lora_scale, lora_dropout, keys } = numerics;
        let (d_weight, d_bias) = (grads.weight.as_ref(), grads.bias.as_ref());
        linear::backward_parameters(x, dy, d_weight, d_bias, precision)?;
        let dx = linear::backward_input(dy, &self.weight, dx, precision)?;
        match (&self.low_rank, &grads.low_rank) {
            (Some(([a, b], site)), Some((grads, _))) => {
                let mask = Dropout { site: *site, p: lora_dropout }.mask(keys);
                low_rank_backward([a, b], x, dy, dx, grads, (lora_scale, mask))
            }
            _ => Ok(dx),
        }
    }
}

/// The gradient of an adapter's input, added to `dx`; adds those of `A` and `B` to `grads`. The dropped input and its
/// product with `A` are cheap, so they are recomputed.
fn low_rank_backward(
    [a, b]: [&Tensor; 2],
    x: &Tensor,
    dy: &Tensor,
    dx: Tensor,
    [d_a, d_b]: &[Option<Tensor>; 2],
    (scale, mask): (f32, Option<DropoutMask<'_>>),
) -> Result<Tensor> {
    let dropped = mask.map(|mask| dropout::forward(x, &mask)).transpose()?;
    let x = dropped.as_ref().unwrap_or(x);
    let d_product = linear::backward_input(dy, b, None, Precision::F32)?;
    memory::scale(&d_product, scale)?;
    if let Some(d_a) = d_a {
        linear::backward_weight(x, &d_product, d_a, None, Precision::F32)?;
    }
    if let Some(d_b) = d_b {
        let product = linear::forward(x, a, None, Precision::F32)?;
        memory::scale(&product, scale)?;
        linear::backward_weight(&product, dy, d_b, None, Precision::F32)?;
    }
    let Some(mask) = mask else {
        return Ok(linear::backward_input(&d_product, a, Some(dx), Precision::F32)?);
    };
    dropout::backward(&linear::backward_input(&d_product, a, None, Precision::F32)?, &mask, &dx)?;
    Ok(dx)
}

/// The gradients of the tensors of a layer.
type LinearGradients = Linear<Option<Tensor>>;

impl FeedForward<Linear<Tensor>> {
    /// The gradient of the input `x` from that of the output; adds the gradients of trained tensors to `grads`. `wide` is
    /// what the first layers gave. The input is computed when it is needed.
    fn backward(
        &self,
        x: impl FnOnce() -> Result<Tensor>,
        wide: Vec<Tensor>,
        dy: &Tensor,
        grads: &FeedForward<LinearGradients>,
        numerics: Numerics<'_>,
    ) -> Result<Option<Tensor>> {
        let product = activated(&wide)?;
        match (self, grads) {
            (
                Self::Gated { gate, up, down },
                FeedForward::Gated { gate: d_gates, up: d_ups, down: d_downs },
            ) => {
                let d_product = down.backward(&product, dy, None, d_downs, numerics)?;
                drop(product);
                let mut wide = wide.into_iter();
                let (Some(of_gate), Some(of_up)) = (wide.next(), wide.next()) else {
                    return Ok(None);
                };
                let (d_gate, d_up) = swiglu::backward(of_gate, of_up, &d_product)?;
                drop(d_product);
                let x = x()?;
                let dx = gate.backward(&x, &d_gate, None, d_gates, numerics)?;
                drop(d_gate);
                up.backward(&x, &d_up, Some(dx), d_ups, numerics).map(Some)
            }
            (
                Self::Plain { first, second },
                FeedForward::Plain { first: d_firsts, second: d_seconds },
            ) => {
                let d_product = second.backward(&product, dy, None, d_seconds, numerics)?;
                drop(product);
                let Some(of_first) = wide.into_iter().next() else { return Ok(None) };
                let d_wide = gelu::backward(of_first, &d_product, Gelu::Tanh)?;
                drop(d_product);
                first.backward(&x()?, &d_wide, None, d_firsts, numerics).map(Some)
            }
            // Gradients have the layout of their weights.
            _ => Ok(None),
        }
    }
}

impl Block<Linear<Tensor>, Tensor> {
    /// The gradient of the block's input from that of its output; adds the gradients of trained tensors to `grads`.
    ///
    /// # Shapes
    /// `x`, `dy` and the result (patches, hidden).
    pub(super) fn backward(
        &self,
        x: &Tensor,
        saved: Activations,
        dy: Tensor,
        grads: &Block<LinearGradients, Option<Tensor>>,
        (pass, is_full): (&Pass, bool),
        numerics: Numerics<'_>,
    ) -> Result<Tensor> {
        // Activations are freed as soon as they are used: memory peaks here.
        let Activations { attention, middle, feed_forward } = saved;
        let FeedForwardActivations { stats, wide } = feed_forward;
        let normed = || Ok(self.feed_forward_norm.recompute(&middle, &stats)?);
        let of_feed_forward = &grads.feed_forward;
        let d_normed = self.feed_forward.backward(normed, wide, &dy, of_feed_forward, numerics)?;
        // From here on, `dy` is the gradient of the residual stream.
        if let Some(d_normed) = d_normed {
            let of_norm = &grads.feed_forward_norm;
            self.feed_forward_norm.backward(&middle, &stats, &d_normed, &dy, of_norm)?;
        }
        drop(middle);
        let Attention { stats, qkv: [q, k, v], attended } = attention;
        let d_attended = self.o.backward(&attended.out, &dy, None, &grads.o, numerics)?;
        let (spans, pattern) = (pass.spans(is_full), pass.pattern());
        let d = attention::backward((&q, &k, &v), &attended, &d_attended, spans, pattern)?;
        drop((q, k, v, attended, d_attended));
        rope::rotate(&d.q, &pass.cos_sin, Rotation::Backward)?;
        rope::rotate(&d.k, &pass.cos_sin, Rotation::Backward)?;
        let normed = self.attention_norm.recompute(x, &stats)?;
        let mut d_normed = None;
        for ((own, grads), d) in self.qkv.iter().zip(&grads.qkv).zip([d.q, d.k, d.v]) {
            d_normed = Some(own.backward(&normed, &d, d_normed, grads, numerics)?);
        }
        if let Some(d_normed) = d_normed {
            self.attention_norm.backward(x, &stats, &d_normed, &dy, &grads.attention_norm)?;
        }
        Ok(dy)
    }
}

impl Merger<Linear<Tensor>, Tensor> {
    /// Adds to `dx` the gradient of the merger's input from that of its output, and the gradients of trained tensors to
    /// `grads`; `merged` adjacent patches form a token.
    ///
    /// # Shapes
    /// `x` and `dx` (patches, hidden), `dy` (tokens, hidden size of the decoder).
    pub(super) fn backward(
        &self,
        (x, dx): (&Tensor, &Tensor),
        merged: usize,
        saved: MergerActivations,
        dy: &Tensor,
        grads: &Merger<LinearGradients, Option<Tensor>>,
        numerics: Numerics<'_>,
    ) -> Result<()> {
        let MergerActivations { stats, wide } = saved;
        let activated = gelu::forward(&wide, Gelu::Exact)?;
        let d_activated = self.second.backward(&activated, dy, None, &grads.second, numerics)?;
        drop(activated);
        let d_wide = gelu::backward(wide, &d_activated, Gelu::Exact)?;
        drop(d_activated);
        let [of_norm, d_of_norm] = [self.of_norm(x, merged)?, self.of_norm(dx, merged)?];
        let normed = self.norm.recompute(&of_norm, &stats)?;
        let input = if self.joins_first { normed } else { joined(&normed, merged)? };
        let d_input = self.first.backward(&input, &d_wide, None, &grads.first, numerics)?;
        let shape = of_norm.dims2().map_err(embodied_r_kernels::Error::from)?;
        let d_normed = memory::reshape(&d_input, shape)?;
        Ok(self.norm.backward(&of_norm, &stats, &d_normed, &d_of_norm, &grads.norm)?)
    }
}

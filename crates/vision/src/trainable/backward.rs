//! The backward of blocks and merger.

use candle_core::Tensor;
use embodied_r_kernels::dropout::{self, DropoutMask};
use embodied_r_kernels::rope::{self, Rotation};
use embodied_r_kernels::{attention, gelu, linear, memory, rms_norm, swiglu};
use embodied_r_policy::Precision;

use super::modules::{Block, Linear, Modules};
use crate::error::Result;
use crate::tower::{Activations, Attention, Dropout, FeedForward, MergerActivations, Pass};

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

impl Block<Tensor> {
    /// The gradient of the block's input from that of its output; adds the gradients of trained tensors to `grads`.
    ///
    /// # Shapes
    /// `x`, `dy` and the result (patches, hidden).
    pub(super) fn backward(
        &self,
        x: &Tensor,
        saved: Activations,
        dy: Tensor,
        grads: &Block<Option<Tensor>>,
        (pass, is_full): (&Pass, bool),
        numerics: Numerics<'_>,
    ) -> Result<Tensor> {
        // Activations are freed as soon as they are used: memory peaks here.
        let Activations { attention, middle, feed_forward: FeedForward { scale, gate, up } } =
            saved;
        let product = swiglu::forward(&gate, &up)?;
        let d_product = self.down.backward(&product, &dy, None, &grads.down, numerics)?;
        drop(product);
        let (d_gate, d_up) = swiglu::backward(gate, up, &d_product)?;
        drop(d_product);
        let normed = rms_norm::recompute(&middle, &self.feed_forward_norm, &scale)?;
        let d_normed = self.gate.backward(&normed, &d_gate, None, &grads.gate, numerics)?;
        drop(d_gate);
        let d_normed = self.up.backward(&normed, &d_up, Some(d_normed), &grads.up, numerics)?;
        drop((d_up, normed));
        // From here on, `dy` is the gradient of the residual stream.
        let d_weight = grads.feed_forward_norm.as_ref();
        rms_norm::backward(&middle, &self.feed_forward_norm, &scale, &d_normed, &dy, d_weight)?;
        drop((middle, d_normed));
        let Attention { scale, qkv: [q, k, v], attended } = attention;
        let d_attended = self.o.backward(&attended.out, &dy, None, &grads.o, numerics)?;
        let (spans, pattern) = (pass.spans(is_full), pass.pattern());
        let d = attention::backward((&q, &k, &v), &attended, &d_attended, spans, pattern)?;
        drop((q, k, v, attended, d_attended));
        rope::rotate(&d.q, &pass.cos_sin, Rotation::Backward)?;
        rope::rotate(&d.k, &pass.cos_sin, Rotation::Backward)?;
        let normed = rms_norm::recompute(x, &self.attention_norm, &scale)?;
        let mut d_normed = None;
        for ((own, grads), d) in self.qkv.iter().zip(&grads.qkv).zip([d.q, d.k, d.v]) {
            d_normed = Some(own.backward(&normed, &d, d_normed, grads, numerics)?);
        }
        if let Some(d_normed) = d_normed {
            let d_weight = grads.attention_norm.as_ref();
            rms_norm::backward(x, &self.attention_norm, &scale, &d_normed, &dy, d_weight)?;
        }
        Ok(dy)
    }
}

impl Modules<Tensor> {
    /// The gradient of the merger's input from that of its output; adds the gradients of trained tensors to `grads`.
    ///
    /// # Shapes
    /// `x` and the result (patches, hidden), `dy` (tokens, hidden size of the decoder).
    pub(super) fn merger_backward(
        &self,
        x: &Tensor,
        saved: MergerActivations,
        dy: &Tensor,
        grads: &Modules<Option<Tensor>>,
        numerics: Numerics<'_>,
    ) -> Result<Tensor> {
        let MergerActivations { scale, wide } = saved;
        let activated = gelu::forward(&wide)?;
        let d_activated = self.second.backward(&activated, dy, None, &grads.second, numerics)?;
        drop(activated);
        let shape = wide.dims2().map_err(embodied_r_kernels::Error::from)?;
        let d_wide = gelu::backward(wide, &d_activated)?;
        drop(d_activated);
        let joined = rms_norm::recompute(x, &self.merger_norm, &scale)?;
        let joined = memory::reshape(&joined, shape)?;
        let d_joined = self.first.backward(&joined, &d_wide, None, &grads.first, numerics)?;
        let (patches, hidden) = x.dims2().map_err(embodied_r_kernels::Error::from)?;
        let d_normed = memory::reshape(&d_joined, (patches, hidden))?;
        let dx = memory::zeros_like(x)?;
        let d_weight = grads.merger_norm.as_ref();
        rms_norm::backward(x, &self.merger_norm, &scale, &d_normed, &dx, d_weight)?;
        Ok(dx)
    }
}

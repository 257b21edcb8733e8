//! The differentiable path: scores first, then gradients from the scores' gradients.

use candle_core::Tensor;
use embodied_r_kernels::rms_norm::Normed;
use embodied_r_kernels::{embedding, lm_head, memory, rms_norm};

use crate::decoder::Activations;
use crate::error::{Error, Result};
use crate::packed::PackedBatch;
use crate::parameters::Gradients;
use crate::policy::{Policy, TokenScores};

/// A forward pass that can be differentiated once.
pub struct Forward<'a> {
    policy: &'a Policy,
    batch: PackedBatch,
    temperature: f64,
    /// What the masks of dropout follow from; none for no dropout.
    noise: Option<u64>,
    /// From the lowest layer on that a gradient has to reach.
    layers: Vec<Kept>,
    /// The last layer's output at the rows that predict a token (scored tokens, hidden).
    picked: Tensor,
    normed: Normed,
    head: lm_head::Scores,
    scores: TokenScores,
}

/// What a layer keeps: its input always, the rest if there is memory for it.
struct Kept {
    input: Tensor,
    activations: Option<Activations>,
}

impl<'a> Forward<'a> {
    pub(crate) fn new(
        policy: &'a Policy,
        batch: PackedBatch,
        temperature: f64,
        noise: Option<u64>,
    ) -> Result<Self> {
        let decoder = &policy.decoder;
        let pass = policy.pass(&batch, noise);
        let keep = policy.keeps_activations(batch.ids.len());
        let mut layers = Vec::with_capacity(decoder.layers.len());
        let mut x = policy.embedded(&batch)?;
        for (index, layer) in decoder.layers.iter().enumerate() {
            let (y, activations) = layer.forward(&x, &pass)?;
            if index >= policy.lowest_trained() {
                layers.push(Kept { input: x, activations: keep.then_some(activations) });
            }
            x = y;
        }
        let picked = embedding::gather(&x, &batch.sources)?;
        let normed = rms_norm::forward(&picked, &decoder.norm, pass.eps)?;
        let head = lm_head::forward(&normed.y, &policy.head(temperature), &batch.targets)?;
        let (logps, entropies) = (head.logps.clone(), head.entropies.clone());
        let scores = TokenScores { logps, entropies };
        Ok(Self { policy, batch, temperature, noise, layers, picked, normed, head, scores })
    }

    /// The scores of all completions' tokens.
    pub fn scores(&self) -> &TokenScores {
        &self.scores
    }

    /// Adds to `grads` the gradient of `Σ d_logps[i] · logps[i]` with respect to every tensor that is
    /// trained. It stops at the lowest layer that has one.
    ///
    /// Layer by layer from the last: a layer whose activations were not kept is computed again from
    /// its input, and all that it held is freed before the next one's turn.
    ///
    /// # Errors
    /// [`Error::Sequence`] unless there are as many gradients as scores.
    pub fn backward(self, d_logps: &[f32], grads: &mut Gradients) -> Result<()> {
        let Self { policy, batch, temperature, noise, layers, picked, normed, head, .. } = self;
        if d_logps.len() != batch.targets.len() {
            let fault = format!("{} gradients for {} tokens", d_logps.len(), batch.targets.len());
            return Err(Error::Sequence { index: 0, fault });
        }
        let (decoder, pass) = (&policy.decoder, policy.pass(&batch, noise));
        let grads = &grads.decoder;
        let d_normed = lm_head::backward(
            &normed.y,
            &policy.head(temperature),
            &batch.targets,
            &head,
            d_logps,
            grads.head.as_ref(),
        )?;
        let d_picked = memory::zeros(picked.dims())?;
        rms_norm::backward(
            &picked,
            &decoder.norm,
            &normed.scale,
            &d_normed,
            &d_picked,
            grads.norm.as_ref(),
        )?;
        let mut dx = memory::zeros(&[batch.ids.len(), policy.config().hidden_size])?;
        embedding::scatter_add(&dx, &batch.sources, &d_picked)?;
        let trained = decoder.layers.iter().zip(&grads.layers).skip(policy.lowest_trained());
        for ((layer, grads), kept) in trained.zip(layers).rev() {
            let activations = match kept.activations {
                Some(activations) => activations,
                None => layer.forward(&kept.input, &pass)?.1,
            };
            dx = layer.backward(&kept.input, activations, dx, grads, &pass)?;
        }
        match &grads.embedding {
            Some(embedding) => Ok(embedding::scatter_add(embedding, &batch.ids, &dx)?),
            None => Ok(()),
        }
    }
}

//! The differentiable path: scores first, then gradients from the scores' gradients.

use candle_core::Tensor;
use embodied_r_kernels::rms_norm::Normed;
use embodied_r_kernels::{embedding, lm_head, memory, pool, rms_norm};

use crate::decoder::{Activations, DecoderGradients, Pass, PromptKv, Sharing};
use crate::error::{Error, Result};
use crate::packed::PackedBatch;
use crate::parameters::Gradients;
use crate::policy::{Policy, TokenScores};
use crate::tape::Taped;

/// A forward pass that can be differentiated once.
pub struct Forward<'a> {
    policy: &'a Policy,
    batch: PackedBatch,
    /// What the masks of dropout follow from; none for no dropout.
    noise: Option<u64>,
    layers: KeptLayers<'a>,
    head: HeadPass,
}

impl<'a> Forward<'a> {
    pub(crate) fn new(
        policy: &'a Policy,
        batch: PackedBatch,
        temperature: f64,
        noise: Option<u64>,
    ) -> Result<Self> {
        let pass = policy.pass(&batch, noise);
        let x = policy.embedded(&batch.ids)?;
        let keep = policy.kept_layers(batch.ids.len());
        let (layers, x) = KeptLayers::forward(policy, x, &pass, keep, |_| Sharing::Alone)?;
        let picked = embedding::gather(&x, &batch.sources)?;
        let head = HeadPass::forward(policy, picked, &batch.targets, temperature)?;
        Ok(Self { policy, batch, noise, layers, head })
    }

    /// The pass that a rollout has made already.
    pub(crate) fn taped(
        policy: &'a Policy,
        batch: PackedBatch,
        temperature: f64,
        taped: Taped<'a>,
    ) -> Result<Self> {
        let picked = embedding::gather(&taped.output()?, &batch.sources)?;
        let head = HeadPass::forward(policy, picked, &batch.targets, temperature)?;
        Ok(Self { policy, batch, noise: None, layers: KeptLayers::Taped(taped), head })
    }

    /// The scores of all completions' tokens.
    pub fn scores(&self) -> &TokenScores {
        &self.head.scores
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
        self.backward_telling(d_logps, grads, &mut |_| ())
    }

    /// As [`Self::backward`], which tells `on_final` on its way what it will not touch again.
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_telling(
        self,
        d_logps: &[f32],
        grads: &mut Gradients,
        on_final: &mut OnFinal<'_>,
    ) -> Result<()> {
        let Self { policy, batch, noise, layers, head } = self;
        let (pass, grads) = (policy.pass(&batch, noise), &grads.decoder);
        let d_picked = head.backward(policy, &batch.targets, d_logps, grads)?;
        let dx = memory::zero_rows(batch.ends.len(), &d_picked)?;
        embedding::scatter_add(&dx, &batch.sources, &d_picked)?;
        let dx = layers.backward(policy, dx, &pass, grads, |_| Sharing::Alone, on_final)?;
        grads.add_tokens(&batch.ids, &dx)
    }
}

/// Told by a backward on its way: of the gradients of all trained numbers, end to end in the order of
/// [`Policy::parameters`], it will not change those from this one on.
pub type OnFinal<'a> = dyn FnMut(usize) + Send + 'a;

/// What the layers keep of a forward pass.
pub(crate) enum KeptLayers<'t> {
    /// From the lowest layer on that a gradient has to reach.
    Own(Vec<Kept>),
    /// A rollout's.
    Taped(Taped<'t>),
}

/// What a layer keeps: its input always, the rest if there is memory for it.
pub(crate) struct Kept {
    input: Tensor,
    activations: Option<Activations>,
}

/// Which layers keep what.
struct Keeping {
    /// The first that keeps its input.
    inputs: usize,
    /// The first that keeps all.
    all: usize,
}

impl Keeping {
    /// The last `keep` layers keep all, and those that no gradient reaches nothing.
    fn new(policy: &Policy, keep: usize) -> Self {
        let all = policy.decoder.layers.len().saturating_sub(keep);
        Self { inputs: policy.lowest_trained(), all }
    }

    fn of(&self, index: usize, input: Tensor, activations: Activations) -> Option<Kept> {
        let kept = || Kept { input, activations: (index >= self.all).then(|| activations.slim()) };
        (index >= self.inputs).then(kept)
    }
}

impl KeptLayers<'_> {
    /// All layers over `x`, of which the last `keep` keep all that their backward needs: theirs comes
    /// first, and frees it again. The output is that of the pass's ends.
    pub(crate) fn forward<'p>(
        policy: &Policy,
        x: Tensor,
        pass: &Pass<'_>,
        keep: usize,
        sharing: impl Fn(usize) -> Sharing<'p> + Sync,
    ) -> Result<(Self, Tensor)> {
        let (mut kept, keeping) = (Vec::new(), Keeping::new(policy, keep));
        let x = policy.through(x, pass, sharing, |index, input, activations| {
            kept.extend(keeping.of(index, input, activations));
            Ok(())
        })?;
        Ok((Self::Own(kept), x))
    }

    /// As [`Self::forward`] over a prompt, with the keys and values that completions behind it see.
    pub(crate) fn forward_prompt(
        policy: &Policy,
        x: Tensor,
        pass: &Pass<'_>,
        keep: usize,
    ) -> Result<(Self, Vec<PromptKv>, Tensor)> {
        let (mut kept, mut kvs, keeping) = (Vec::new(), Vec::new(), Keeping::new(policy, keep));
        let x = policy.through(
            x,
            pass,
            |_| Sharing::Alone,
            |index, input, activations| {
                kvs.push(activations.prompt_kv()?);
                kept.extend(keeping.of(index, input, activations));
                Ok(())
            },
        )?;
        Ok((Self::Own(kept), kvs, x))
    }

    /// The gradient of the input of the lowest layer that is reached, from that of the last one's output.
    pub(crate) fn backward<'p>(
        mut self,
        policy: &Policy,
        mut dx: Tensor,
        pass: &Pass<'_>,
        grads: &DecoderGradients,
        sharing: impl Fn(usize) -> Sharing<'p> + Sync,
        on_final: &mut OnFinal<'_>,
    ) -> Result<Tensor> {
        let layers = policy.decoder.layers.iter().zip(&grads.layers).enumerate();
        pool::awake(policy.device(), || {
            on_final(policy.parameters().above(policy.decoder.layers.len()));
            for (index, (layer, grads)) in layers.skip(policy.lowest_trained()).rev() {
                let Some(kept) = self.take(index)? else { break };
                let (ends, sharing) =
                    (pass.ends(index, policy.decoder.layers.len()), sharing(index));
                let activations = match kept.activations {
                    Some(activations) => activations,
                    // A prompt's own forward does not see what is behind it.
                    None => layer.forward(&kept.input, pass, ends, sharing)?.1,
                };
                dx = layer.backward(&kept.input, activations, dx, grads, (pass, ends), sharing)?;
                on_final(policy.parameters().above(index));
                policy.passed_layer();
            }
            Ok(dx)
        })
    }

    /// What the layer at `index` has kept; those behind it have been taken before.
    fn take(&mut self, index: usize) -> Result<Option<Kept>> {
        match self {
            Self::Own(kept) => Ok(kept.pop()),
            Self::Taped(taped) => {
                let (input, activations) = taped.layer(index)?;
                Ok(Some(Kept { input, activations }))
            }
        }
    }
}

/// The last norm and the LM head over the rows that predict a token.
pub(crate) struct HeadPass {
    /// The last layer's output at these rows (scored tokens, hidden).
    picked: Tensor,
    normed: Normed,
    head: lm_head::Scores,
    temperature: f64,
    pub(crate) scores: TokenScores,
}

impl HeadPass {
    pub(crate) fn forward(
        policy: &Policy,
        picked: Tensor,
        targets: &[u32],
        temperature: f64,
    ) -> Result<Self> {
        let normed =
            rms_norm::forward(&picked, &policy.decoder.norm, policy.config().rms_norm_eps)?;
        let head = lm_head::forward(&normed.y, &policy.head(temperature), targets)?;
        let (logps, entropies) = (head.logps.clone(), head.entropies.clone());
        let scores = TokenScores { logps, entropies };
        Ok(Self { picked, normed, head, temperature, scores })
    }

    /// The gradient of the picked rows (scored tokens, hidden).
    pub(crate) fn backward(
        self,
        policy: &Policy,
        targets: &[u32],
        d_logps: &[f32],
        grads: &DecoderGradients,
    ) -> Result<Tensor> {
        if d_logps.len() != targets.len() {
            let fault = format!("{} gradients for {} tokens", d_logps.len(), targets.len());
            return Err(Error::Sequence { index: 0, fault });
        }
        let Self { picked, normed, head, temperature, .. } = self;
        let weight = policy.head(temperature);
        let d_normed =
            lm_head::backward(&normed.y, &weight, targets, &head, d_logps, grads.head.as_ref())?;
        let d_picked = memory::zeros_like(&picked)?;
        let norm = &policy.decoder.norm;
        let d_norm = grads.norm.as_ref();
        rms_norm::backward(&picked, norm, &normed.scale, &d_normed, &d_picked, d_norm)?;
        Ok(d_picked)
    }
}

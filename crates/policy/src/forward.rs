//! Forward and backward passes for training: scores, and gradients from the scores' gradients.

use candle_core::Tensor;
use embodied_r_kernels::rms_norm::RmsNormOutput;
use embodied_r_kernels::{embedding, lm_head, memory, rms_norm, thread_pool};

use crate::activation_cache::CachedActivations;
use crate::decoder::{Activations, DecoderGradients, Pass, PromptKv, PromptSharing};
use crate::error::{Error, Result};
use crate::image_rows::{Embedded, ImageBackward};
use crate::packed::PackedBatch;
use crate::parameters::Gradients;
use crate::policy::{Policy, TokenScores};

/// A forward pass that supports one backward pass.
pub struct ForwardPass<'a> {
    policy: &'a Policy,
    batch: PackedBatch,
    /// Seed of the dropout masks; `None` without dropout.
    dropout_seed: Option<u64>,
    layers: SavedLayers<'a>,
    head: HeadPass,
}

impl<'a> ForwardPass<'a> {
    pub(crate) fn new(
        policy: &'a Policy,
        batch: PackedBatch,
        temperature: f64,
        dropout_seed: Option<u64>,
    ) -> Result<Self> {
        let pass = policy.pass(&batch, dropout_seed)?;
        let x = policy.embed(&batch)?;
        let saved_layers = policy.layers_to_save(batch.ids.len());
        let (layers, x) =
            SavedLayers::forward(policy, x, &pass, saved_layers, |_| PromptSharing::None)?;
        let selected = embedding::gather(&x, &batch.sources)?;
        let head = HeadPass::forward(policy, selected, &batch.targets, temperature)?;
        Ok(Self { policy, batch, dropout_seed, layers, head })
    }

    /// A forward pass from the activations that the rollout recorded.
    pub(crate) fn from_cache(
        policy: &'a Policy,
        batch: PackedBatch,
        temperature: f64,
        cached: CachedActivations<'a>,
    ) -> Result<Self> {
        let selected = embedding::gather(&cached.output()?, &batch.sources)?;
        let head = HeadPass::forward(policy, selected, &batch.targets, temperature)?;
        Ok(Self { policy, batch, dropout_seed: None, layers: SavedLayers::Cached(cached), head })
    }

    /// Log-probabilities and entropies of all completion tokens.
    pub fn scores(&self) -> &TokenScores {
        &self.head.scores
    }

    /// Adds to `grads` the gradient of `Σ d_logps[i] · logps[i]` with respect to every trained tensor. It
    /// stops at the lowest layer with one.
    ///
    /// Layers are processed from the last to the first. A layer without saved activations is recomputed from
    /// its input, and its activations are freed before the next layer.
    ///
    /// # Errors
    /// [`Error::Sequence`] unless there are as many gradients as scores.
    pub fn backward(self, d_logps: &[f32], grads: &mut Gradients) -> Result<()> {
        self.backward_with_hook(d_logps, grads, &mut |_| ())
    }

    /// As [`Self::backward`]; calls `on_ready` as gradients become final.
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_with_hook(
        self,
        d_logps: &[f32],
        grads: &mut Gradients,
        on_ready: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        let Self { policy, batch, dropout_seed, layers, head } = self;
        let pass = policy.pass(&batch, dropout_seed)?;
        let d_selected = head.backward(policy, &batch.targets, d_logps, &grads.decoder)?;
        let dx = memory::zero_rows(batch.output_rows.len(), &d_selected)?;
        embedding::scatter_add(&dx, &batch.sources, &d_selected)?;
        let sharing = |_| PromptSharing::None;
        let images = policy.image_backward(&batch, grads.images());
        let grads_of = (&grads.decoder, images);
        let dx = layers.backward(policy, dx, &pass, grads_of, sharing, on_ready)?;
        grads.add_inputs(&batch, &dx)
    }
}

/// Called during a backward pass as gradients become final, so that they can be reduced while it runs: with
/// all gradients flattened in the order of [`Policy::parameters`], those from this index on are final.
pub type GradientReadyHook<'a> = dyn FnMut(usize) + Send + 'a;

/// The layers' saved activations of a forward pass.
pub(crate) enum SavedLayers<'t> {
    /// Of an own forward pass, from the lowest layer with a gradient on.
    Computed(Vec<SavedLayer>),
    /// Recorded by a rollout.
    Cached(CachedActivations<'t>),
}

/// A layer's saved activations: always its input, the rest if memory allows.
pub(crate) struct SavedLayer {
    input: Tensor,
    activations: Option<Activations>,
}

/// Which layers save activations, and which are recomputed in the backward (activation checkpointing).
struct RecomputePolicy {
    /// The first layer that saves its input.
    inputs: usize,
    /// The first layer that saves all activations.
    all: usize,
}

impl RecomputePolicy {
    /// The last `saved_layers` layers save all activations; layers below all trained tensors save nothing.
    fn new(policy: &Policy, saved_layers: usize) -> Self {
        let all = policy.decoder.layers.len().saturating_sub(saved_layers);
        Self { inputs: policy.lowest_trained(), all }
    }

    fn of(&self, index: usize, input: Tensor, activations: Activations) -> Option<SavedLayer> {
        let saved = || SavedLayer {
            input,
            activations: (index >= self.all).then(|| activations.without_recomputable()),
        };
        (index >= self.inputs).then(saved)
    }
}

impl SavedLayers<'_> {
    /// Runs all layers on the embeddings and returns the output at the pass's output rows. The last `saved_layers` layers save
    /// their activations: their backward runs first and frees them.
    pub(crate) fn forward<'p>(
        policy: &Policy,
        embedded: Embedded,
        pass: &Pass<'_>,
        saved_layers: usize,
        sharing: impl Fn(usize) -> PromptSharing<'p> + Sync,
    ) -> Result<(Self, Tensor)> {
        let (mut saved, recompute) = (Vec::new(), RecomputePolicy::new(policy, saved_layers));
        let x = policy.forward_layers(embedded, pass, sharing, |index, input, activations| {
            saved.extend(recompute.of(index, input, activations));
            Ok(())
        })?;
        Ok((Self::Computed(saved), x))
    }

    /// As [`Self::forward`] on a prompt, with its keys and values for the completions.
    pub(crate) fn forward_prompt(
        policy: &Policy,
        embedded: Embedded,
        pass: &Pass<'_>,
        saved_layers: usize,
    ) -> Result<(Self, Vec<PromptKv>, Tensor)> {
        let (mut saved, mut kvs, recompute) =
            (Vec::new(), Vec::new(), RecomputePolicy::new(policy, saved_layers));
        let x = policy.forward_layers(
            embedded,
            pass,
            |_| PromptSharing::None,
            |index, input, activations| {
                kvs.push(policy.decoder.layers[index].prompt_kv(activations.saved_kv(), pass)?);
                saved.extend(recompute.of(index, input, activations));
                Ok(())
            },
        )?;
        Ok((Self::Computed(saved), kvs, x))
    }

    /// The gradient of the lowest reached layer's input, from that of the last layer's output; also adds the gradients of
    /// what `images` added after a layer.
    pub(crate) fn backward<'p>(
        mut self,
        policy: &Policy,
        mut dx: Tensor,
        pass: &Pass<'_>,
        (grads, images): (&DecoderGradients, Option<ImageBackward<'_>>),
        sharing: impl Fn(usize) -> PromptSharing<'p> + Sync,
        on_ready: &mut GradientReadyHook<'_>,
    ) -> Result<Tensor> {
        let layers = policy.decoder.layers.iter().zip(&grads.layers).enumerate();
        thread_pool::with_spinning_workers(policy.device(), || {
            on_ready(policy.parameters().first_final(policy.decoder.layers.len()));
            for (index, (layer, grads)) in layers.skip(policy.lowest_trained()).rev() {
                let Some(saved) = self.take(index)? else { break };
                let (output_rows, sharing) =
                    (pass.output_rows(index, policy.decoder.layers.len()), sharing(index));
                if let Some(images) = images {
                    images.add(index, &dx, output_rows.map(|it| &it.rows[..]))?;
                }
                let activations = match saved.activations {
                    Some(activations) => activations,
                    // A prompt's forward does not depend on its completions.
                    None => layer.forward(&saved.input, pass, output_rows, sharing)?.1,
                };
                dx = layer.backward(
                    &saved.input,
                    activations,
                    dx,
                    grads,
                    (pass, output_rows),
                    sharing,
                )?;
                on_ready(policy.parameters().first_final(index));
                policy.call_layer_hook();
            }
            Ok(dx)
        })
    }

    /// Takes the saved activations of the layer at `index`, after those above it.
    fn take(&mut self, index: usize) -> Result<Option<SavedLayer>> {
        match self {
            Self::Computed(saved) => Ok(saved.pop()),
            Self::Cached(cached) => {
                let (input, activations) = cached.layer(index)?;
                Ok(Some(SavedLayer { input, activations }))
            }
        }
    }
}

/// The final norm and the LM head, for the rows that predict a scored token.
pub(crate) struct HeadPass {
    /// The last layer's output at these rows (scored tokens, hidden).
    selected: Tensor,
    normed: RmsNormOutput,
    head: lm_head::LmHeadOutput,
    temperature: f64,
    pub(crate) scores: TokenScores,
}

impl HeadPass {
    pub(crate) fn forward(
        policy: &Policy,
        selected: Tensor,
        targets: &[u32],
        temperature: f64,
    ) -> Result<Self> {
        let normed =
            rms_norm::forward(&selected, &policy.decoder.norm, policy.config().rms_norm_eps)?;
        let head = lm_head::forward(&normed.y, &policy.head(temperature), targets)?;
        let (logps, entropies) = (head.logps.clone(), head.entropies.clone());
        let scores = TokenScores { logps, entropies };
        Ok(Self { selected, normed, head, temperature, scores })
    }

    /// The gradient of the selected rows (scored tokens, hidden).
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
        let Self { selected, normed, head, temperature, .. } = self;
        let weight = policy.head(temperature);
        let d_normed =
            lm_head::backward(&normed.y, &weight, targets, &head, d_logps, grads.head.as_ref())?;
        let d_selected = memory::zeros_like(&selected)?;
        let norm = &policy.decoder.norm;
        let d_norm = grads.norm.as_ref();
        rms_norm::backward(&selected, norm, &normed.scale, &d_normed, &d_selected, d_norm)?;
        Ok(d_selected)
    }
}

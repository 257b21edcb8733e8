//! Groups that are too long for one pass: the prompt is computed once, the completions in chunks.
//!
//! The prompt's keys and values are saved for every layer. Each chunk attends to them, and its backward
//! adds to their gradients. The prompt's backward runs last, on the sum over the group.

use candle_core::Tensor;
use embodied_r_kernels::{embedding, memory};

use crate::activation_cache::ActivationCache;
use crate::decoder::{Layer, Pass, PromptKv, PromptSharing};
use crate::error::Result;
use crate::forward::{GradientReadyHook, HeadPass, SavedLayers};
use crate::packed::{Group, PackedBatch};
use crate::parameters::Gradients;
use crate::policy::{Policy, TokenScores};
use crate::prompt::Prompt;

/// The forward pass of a prompt, shared by chunks of its completions.
pub struct SharedPrompt<'a> {
    policy: &'a Policy,
    prompt: Prompt,
    batch: PackedBatch,
    temperature: f64,
    dropout_seed: Option<u64>,
    activation_cache: Option<&'a ActivationCache>,
    layers: SavedLayers<'a>,
    kvs: Vec<PromptKv>,
    /// The last layer's output at the prompt's last row, which predicts every first token (1, hidden).
    last: Tensor,
    /// Its gradient so far (1, hidden).
    d_last: Tensor,
}

/// The forward pass of a chunk of completions, which supports one backward pass.
pub struct ChunkForward<'a> {
    shared: &'a SharedPrompt<'a>,
    batch: ChunkBatch,
    /// `None` if each completion has a single token, so that only the prompt's last row is needed.
    layers: Option<SavedLayers<'a>>,
    head: HeadPass,
}

impl<'a> SharedPrompt<'a> {
    /// The forward pass of `prompt` under `policy`, for chunks of at most `chunk_tokens` tokens; dropout seed and
    /// activation cache are as in [`Policy::training_forward`].
    ///
    /// # Errors
    /// The prompt is invalid for the model.
    pub fn new(
        policy: &'a Policy,
        prompt: &Prompt,
        chunk_tokens: usize,
        temperature: f64,
        (dropout_seed, activation_cache): (Option<u64>, Option<&'a ActivationCache>),
    ) -> Result<Self> {
        let group = Group { prompt: prompt.clone(), completions: Vec::new() };
        let batch = policy.pack(std::slice::from_ref(&group))?;
        let activation_cache = activation_cache.filter(|_| !policy.has_dropout());
        let cached = activation_cache.and_then(|activation_cache| {
            activation_cache.packed(std::slice::from_ref(&group), &batch.output_rows)
        });
        let (layers, kvs, last) = match cached {
            Some(cached) => {
                let pass = policy.pass(&batch, dropout_seed)?;
                let layers = policy.decoder.layers.iter().enumerate();
                let kv = |(index, layer): (usize, &Layer)| {
                    Ok(layer.prompt_kv(cached.saved_kv(index)?, &pass)?)
                };
                let kvs = layers.map(kv).collect::<Result<_>>()?;
                let last = cached.output()?;
                (SavedLayers::Cached(cached), kvs, last)
            }
            None => {
                let pass = policy.pass(&batch, dropout_seed)?;
                let x = policy.embed(&batch)?;
                let saved_layers = policy.layers_to_save(prompt.len() + chunk_tokens);
                SavedLayers::forward_prompt(policy, x, &pass, saved_layers)?
            }
        };
        let d_last = memory::zeros_like(&last)?;
        Ok(Self {
            policy,
            prompt: group.prompt,
            batch,
            temperature,
            dropout_seed,
            activation_cache,
            layers,
            kvs,
            last,
            d_last,
        })
    }

    /// The forward pass of `completions` after the prompt.
    ///
    /// # Errors
    /// A completion is invalid for the model.
    pub fn forward_chunk(&'a self, completions: &[Vec<u32>]) -> Result<ChunkForward<'a>> {
        let Self { policy, prompt, last, temperature, .. } = self;
        let group = Group { prompt: prompt.clone(), completions: completions.to_vec() };
        let batch = ChunkBatch::new(policy, &group)?;
        let (mut layers, mut rows) = (None, last.clone());
        if !batch.own().is_empty() {
            let (saved, x) = match self
                .activation_cache
                .and_then(|activation_cache| activation_cache.completions(&group))
            {
                Some(cached) => {
                    let x = cached.output()?;
                    (SavedLayers::Cached(cached), x)
                }
                None => self.forward_chunk_layers(&batch)?,
            };
            rows = memory::concat_rows(&[last, &x])?;
            layers = Some(saved);
        }
        let selected = embedding::gather(&rows, batch.sources())?;
        let head = HeadPass::forward(policy, selected, batch.targets(), *temperature)?;
        Ok(ChunkForward { shared: self, batch, layers, head })
    }

    /// Runs the layers on a chunk's own rows.
    fn forward_chunk_layers(&self, batch: &ChunkBatch) -> Result<(SavedLayers<'a>, Tensor)> {
        let Self { policy, prompt, kvs, dropout_seed, .. } = self;
        let embedded = policy.embed_tokens(batch.own())?.into();
        let saved_layers = policy.layers_to_save(prompt.len() + batch.own().len());
        let completions_sharing = |index: usize| PromptSharing::Completions(&kvs[index]);
        SavedLayers::forward(
            policy,
            embedded,
            &batch.pass(policy, *dropout_seed)?,
            saved_layers,
            completions_sharing,
        )
    }

    /// Adds to `grads` the gradient through the prompt, summed over all chunks.
    ///
    /// # Errors
    /// A kernel fails.
    pub fn backward(self, grads: &mut Gradients) -> Result<()> {
        self.backward_with_hook(grads, &mut |_| ())
    }

    /// As [`Self::backward`]; calls `on_ready` as gradients become final.
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_with_hook(
        self,
        grads: &mut Gradients,
        on_ready: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        let Self { policy, batch, dropout_seed, layers, kvs, d_last, .. } = self;
        let prompt_sharing = |index: usize| PromptSharing::Prompt(&kvs[index]);
        let pass = policy.pass(&batch, dropout_seed)?;
        let images = policy.image_backward(&batch, grads.images());
        let grads_of = (&grads.decoder, images);
        let dx = layers.backward(policy, d_last, &pass, grads_of, prompt_sharing, on_ready)?;
        grads.add_inputs(&batch, &dx)
    }
}

impl ChunkForward<'_> {
    /// The scores of the chunk's tokens.
    pub fn scores(&self) -> &TokenScores {
        &self.head.scores
    }

    /// Adds to `grads` the gradient of `Σ d_logps[i] · logps[i]` that does not flow through the prompt; the
    /// rest is accumulated for the prompt's backward.
    ///
    /// # Errors
    /// [`crate::Error::Sequence`] unless there are as many gradients as scores.
    pub fn backward(self, d_logps: &[f32], grads: &mut Gradients) -> Result<()> {
        let Self { shared, batch, layers, head } = self;
        let SharedPrompt { policy, kvs, d_last, dropout_seed, .. } = shared;
        let grads = &grads.decoder;
        let d_selected = head.backward(policy, batch.targets(), d_logps, grads)?;
        let own = batch.own();
        let d_rows = memory::zero_rows(1 + own.len(), &d_selected)?;
        embedding::scatter_add(&d_rows, batch.sources(), &d_selected)?;
        memory::add(d_last, &memory::rows(&d_rows, 0..1)?)?;
        let Some(layers) = layers else { return Ok(()) };
        let dx = memory::rows(&d_rows, 1..1 + own.len())?;
        let completions_sharing = |index: usize| PromptSharing::Completions(&kvs[index]);
        let pass = batch.pass(policy, *dropout_seed)?;
        // No gradient is final before the prompt's backward.
        let grads_of = (grads, None);
        let dx = layers.backward(policy, dx, &pass, grads_of, completions_sharing, &mut |_| ())?;
        grads.add_tokens(own, &dx)
    }
}

/// A chunk of a group's completions; only the rows after the prompt are computed.
struct ChunkBatch {
    /// The prompt with these completions.
    batch: PackedBatch,
    /// Number of prompt rows.
    prompt: usize,
}

impl ChunkBatch {
    fn new(policy: &Policy, group: &Group) -> Result<Self> {
        let batch = policy.pack(std::slice::from_ref(group))?;
        Ok(Self { batch, prompt: group.prompt.len() })
    }

    /// The completions' input ids.
    fn own(&self) -> &[usize] {
        &self.batch.ids[self.prompt..]
    }

    /// For each scored token, the row that predicts it; row 0 is the prompt's last.
    fn sources(&self) -> &[usize] {
        &self.batch.sources
    }

    fn targets(&self) -> &[u32] {
        &self.batch.targets
    }

    fn pass(&self, policy: &Policy, dropout_seed: Option<u64>) -> Result<Pass<'_>> {
        policy.pass_after_prompt(&self.batch, self.prompt, dropout_seed)
    }
}

impl Policy {
    /// As [`Policy::score`] for each of `chunks` of one group's completions, with the prompt computed once.
    ///
    /// # Errors
    /// As [`Policy::score`].
    pub fn score_chunks(
        &self,
        prompt: &Prompt,
        chunks: &[&[Vec<u32>]],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        let group = Group { prompt: prompt.clone(), completions: Vec::new() };
        let batch = self.pack(&[group])?;
        let (pass, x) = (self.pass(&batch, None)?, self.embed(&batch)?);
        let mut kvs = Vec::with_capacity(self.decoder.layers.len());
        let x = self.forward_layers(
            x,
            &pass,
            |_| PromptSharing::None,
            |index, _, activations| {
                kvs.push(self.decoder.layers[index].prompt_kv(activations.saved_kv(), &pass)?);
                Ok(())
            },
        )?;
        let score = |completions: &&[Vec<u32>]| -> Result<TokenScores> {
            let group = Group { prompt: prompt.clone(), completions: completions.to_vec() };
            let batch = ChunkBatch::new(self, &group)?;
            let mut rows = x.clone();
            if !batch.own().is_empty() {
                let (pass, own) = (batch.pass(self, None)?, self.embed_tokens(batch.own())?);
                let completions_sharing = |index: usize| PromptSharing::Completions(&kvs[index]);
                let own = own.into();
                let own = self.forward_layers(own, &pass, completions_sharing, |_, _, _| Ok(()))?;
                rows = memory::concat_rows(&[&x, &own])?;
            }
            let selected = embedding::gather(&rows, batch.sources())?;
            Ok(HeadPass::forward(self, selected, batch.targets(), temperature)?.scores)
        };
        chunks.iter().map(score).collect()
    }
}

//! A group that is too long for one pass: its prompt is computed once, and the completions in parts
//! behind it.
//!
//! The prompt's keys and values are kept, layer by layer. Each part reads them, and its backward adds
//! to their gradients; the prompt's own backward comes last, and is the sum over the group.

use candle_core::Tensor;
use embodied_r_kernels::{embedding, memory};

use crate::decoder::{Pass, PromptKv, Sharing};
use crate::error::Result;
use crate::forward::{HeadPass, KeptLayers, OnFinal};
use crate::packed::{Group, PackedBatch};
use crate::parameters::Gradients;
use crate::policy::{Policy, TokenScores};
use crate::tape::Tape;

/// A prompt behind which parts of its group are scored and differentiated, one after the other.
pub struct SharedPrompt<'a> {
    policy: &'a Policy,
    ids: Vec<u32>,
    batch: PackedBatch,
    temperature: f64,
    noise: Option<u64>,
    tape: Option<&'a Tape>,
    layers: KeptLayers<'a>,
    kvs: Vec<PromptKv>,
    /// The last layer's output at the prompt's last row, which predicts every first token (1, hidden).
    last: Tensor,
    /// Its gradient so far (1, hidden).
    d_last: Tensor,
}

/// The forward pass of a part of the group. It can be differentiated once.
pub struct PartForward<'a> {
    shared: &'a SharedPrompt<'a>,
    batch: PartBatch,
    /// `None` where each completion has a single token, and no row of its own.
    layers: Option<KeptLayers<'a>>,
    head: HeadPass,
}

impl<'a> SharedPrompt<'a> {
    /// The forward pass of `prompt` under `policy`, for parts of at most `part_tokens` tokens; chance and tape as in
    /// [`Policy::training_forward`].
    ///
    /// # Errors
    /// The prompt is not one that the model can take.
    pub fn new(
        policy: &'a Policy,
        prompt: &[u32],
        part_tokens: usize,
        temperature: f64,
        (noise, tape): (Option<u64>, Option<&'a Tape>),
    ) -> Result<Self> {
        let group = Group { prompt: prompt.to_vec(), completions: Vec::new() };
        let batch = policy.pack(std::slice::from_ref(&group))?;
        let tape = tape.filter(|_| !policy.drops());
        let taped = tape.and_then(|tape| tape.packed(std::slice::from_ref(&group), &batch.ends));
        let (layers, kvs, last) = match taped {
            Some(taped) => {
                let layers = 0..policy.decoder.layers.len();
                let kvs = layers.map(|index| taped.prompt_kv(index)).collect::<Result<_>>()?;
                let last = taped.output()?;
                (KeptLayers::Taped(taped), kvs, last)
            }
            None => {
                let pass = policy.pass(&batch, noise);
                let x = policy.embedded(&batch.ids)?;
                let keep = policy.kept_layers(prompt.len() + part_tokens);
                KeptLayers::forward_prompt(policy, x, &pass, keep)?
            }
        };
        let d_last = memory::zeros_like(&last)?;
        let ids = group.prompt;
        Ok(Self { policy, ids, batch, temperature, noise, tape, layers, kvs, last, d_last })
    }

    /// Scores `completions` behind the prompt.
    ///
    /// # Errors
    /// A completion is not one that the model can take.
    pub fn part(&'a self, completions: &[Vec<u32>]) -> Result<PartForward<'a>> {
        let Self { policy, ids, last, temperature, .. } = self;
        let group = Group { prompt: ids.clone(), completions: completions.to_vec() };
        let batch = PartBatch::new(policy, &group)?;
        let (mut layers, mut rows) = (None, last.clone());
        if !batch.own().is_empty() {
            let (kept, x) = match self.tape.and_then(|tape| tape.behind(&group)) {
                Some(taped) => {
                    let x = taped.output()?;
                    (KeptLayers::Taped(taped), x)
                }
                None => self.part_layers(&batch)?,
            };
            rows = memory::stacked(&[last, &x])?;
            layers = Some(kept);
        }
        let picked = embedding::gather(&rows, batch.sources())?;
        let head = HeadPass::forward(policy, picked, batch.targets(), *temperature)?;
        Ok(PartForward { shared: self, batch, layers, head })
    }

    /// The layers over a part's own rows, and their output.
    fn part_layers(&self, batch: &PartBatch) -> Result<(KeptLayers<'a>, Tensor)> {
        let Self { policy, ids, kvs, noise, .. } = self;
        let x = policy.embedded(batch.own())?;
        let keep = policy.kept_layers(ids.len() + batch.own().len());
        let behind = |index: usize| Sharing::Behind(&kvs[index]);
        KeptLayers::forward(policy, x, &batch.pass(policy, *noise), keep, behind)
    }

    /// Adds to `grads` the gradient that goes through the prompt, the sum over all parts.
    ///
    /// # Errors
    /// Only if a tensor has left the CPU.
    pub fn backward(self, grads: &mut Gradients) -> Result<()> {
        self.backward_telling(grads, &mut |_| ())
    }

    /// As [`Self::backward`], which tells `on_final` on its way what it will not touch again.
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_telling(self, grads: &mut Gradients, on_final: &mut OnFinal<'_>) -> Result<()> {
        let Self { policy, batch, noise, layers, kvs, d_last, .. } = self;
        let grads = &grads.decoder;
        let ahead = |index: usize| Sharing::Ahead(&kvs[index]);
        let pass = policy.pass(&batch, noise);
        let dx = layers.backward(policy, d_last, &pass, grads, ahead, on_final)?;
        grads.add_tokens(&batch.ids, &dx)
    }
}

impl PartForward<'_> {
    /// The scores of the part's tokens.
    pub fn scores(&self) -> &TokenScores {
        &self.head.scores
    }

    /// Adds to `grads` the gradient of `Σ d_logps[i] · logps[i]` that does not go through the prompt; what
    /// does is added to the prompt's.
    ///
    /// # Errors
    /// [`crate::Error::Sequence`] unless there are as many gradients as scores.
    pub fn backward(self, d_logps: &[f32], grads: &mut Gradients) -> Result<()> {
        let Self { shared, batch, layers, head } = self;
        let SharedPrompt { policy, kvs, d_last, noise, .. } = shared;
        let grads = &grads.decoder;
        let d_picked = head.backward(policy, batch.targets(), d_logps, grads)?;
        let own = batch.own();
        let d_rows = memory::zero_rows(1 + own.len(), &d_picked)?;
        embedding::scatter_add(&d_rows, batch.sources(), &d_picked)?;
        memory::add(d_last, &memory::rows(&d_rows, 0..1)?)?;
        let Some(layers) = layers else { return Ok(()) };
        let dx = memory::rows(&d_rows, 1..1 + own.len())?;
        let behind = |index: usize| Sharing::Behind(&kvs[index]);
        let pass = batch.pass(policy, *noise);
        // The prompt's own backward adds to all of them.
        let dx = layers.backward(policy, dx, &pass, grads, behind, &mut |_| ())?;
        grads.add_tokens(own, &dx)
    }
}

/// Completions of a group, whose rows behind the prompt's are computed.
struct PartBatch {
    /// The prompt with these completions.
    batch: PackedBatch,
    /// Rows of the prompt.
    prompt: usize,
}

impl PartBatch {
    fn new(policy: &Policy, group: &Group) -> Result<Self> {
        let batch = policy.pack(std::slice::from_ref(group))?;
        Ok(Self { batch, prompt: group.prompt.len() })
    }

    /// The completions' input ids.
    fn own(&self) -> &[usize] {
        &self.batch.ids[self.prompt..]
    }

    /// For each scored token the row that predicts it, of the prompt's last one and those behind it.
    fn sources(&self) -> &[usize] {
        &self.batch.sources
    }

    fn targets(&self) -> &[u32] {
        &self.batch.targets
    }

    fn pass(&self, policy: &Policy, noise: Option<u64>) -> Pass<'_> {
        policy.pass_behind(&self.batch, self.prompt, noise)
    }
}

impl Policy {
    /// As [`Policy::score`] for each of `parts`, the completions of one group, with the prompt computed
    /// once.
    ///
    /// # Errors
    /// As [`Policy::score`].
    pub fn score_parts(
        &self,
        prompt: &[u32],
        parts: &[Vec<Vec<u32>>],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        let group = Group { prompt: prompt.to_vec(), completions: Vec::new() };
        let batch = self.pack(&[group])?;
        let (pass, x) = (self.pass(&batch, None), self.embedded(&batch.ids)?);
        let mut kvs = Vec::with_capacity(self.decoder.layers.len());
        let x = self.through(
            x,
            &pass,
            |_| Sharing::Alone,
            |_, _, activations| {
                kvs.push(activations.prompt_kv()?);
                Ok(())
            },
        )?;
        let score = |completions: &Vec<Vec<u32>>| -> Result<TokenScores> {
            let group = Group { prompt: prompt.to_vec(), completions: completions.clone() };
            let batch = PartBatch::new(self, &group)?;
            let mut rows = x.clone();
            if !batch.own().is_empty() {
                let (pass, own) = (batch.pass(self, None), self.embedded(batch.own())?);
                let behind = |index: usize| Sharing::Behind(&kvs[index]);
                let own = self.through(own, &pass, behind, |_, _, _| Ok(()))?;
                rows = memory::stacked(&[&x, &own])?;
            }
            let picked = embedding::gather(&rows, batch.sources())?;
            Ok(HeadPass::forward(self, picked, batch.targets(), temperature)?.scores)
        };
        parts.iter().map(score).collect()
    }
}

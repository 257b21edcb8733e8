//! Scores of completions, with and without activations for a backward pass.

use embodied_r_kernels::embedding;

use super::{Policy, TokenScores};
use crate::activation_cache::ActivationCache;
use crate::decoder::PromptSharing;
use crate::error::Result;
use crate::forward::{ForwardPass, HeadPass};
use crate::packed::Group;
use crate::prompt::Prompt;

impl Policy {
    /// Log-probabilities and entropies of all completion tokens at `temperature`, without gradients.
    ///
    /// # Errors
    /// A group is invalid for the model.
    pub fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        let batch = self.pack(groups)?;
        let pass = self.pass(&batch, None)?;
        let x = self.embed(&batch)?;
        let x = self.forward_layers(x, &pass, |_| PromptSharing::None, |_, _, _| Ok(()))?;
        let selected = embedding::gather(&x, &batch.sources)?;
        Ok(HeadPass::forward(self, selected, &batch.targets, temperature)?.scores)
    }

    /// Log-probabilities of a prompt's tokens after the first, without gradients.
    ///
    /// # Errors
    /// The prompt is invalid for the model.
    pub fn score_prompt(&self, prompt: &Prompt) -> Result<Vec<f32>> {
        let group = Group { prompt: prompt.clone(), completions: Vec::new() };
        let mut batch = self.pack(&[group])?;
        batch.output_rows = (0..prompt.len()).collect();
        let pass = self.pass(&batch, None)?;
        let x = self.embed(&batch)?;
        let x = self.forward_layers(x, &pass, |_| PromptSharing::None, |_, _, _| Ok(()))?;
        let before: Vec<usize> = (0..prompt.len() - 1).collect();
        let selected = embedding::gather(&x, &before)?;
        Ok(HeadPass::forward(self, selected, &prompt.ids()[1..], 1.0)?.scores.logps)
    }

    /// As [`Self::score`], with activations saved for [`ForwardPass::backward`].
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn forward(&self, groups: &[Group], temperature: f64) -> Result<ForwardPass<'_>> {
        ForwardPass::new(self, self.pack(groups)?, temperature, None)
    }

    /// As [`Self::forward`], with the adapter's dropout. The masks are determined by `dropout_seed` and the tokens,
    /// independent of packing. Without dropout, activations in the `activation_cache` of a rollout with these weights
    /// are reused.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn training_forward<'a>(
        &'a self,
        groups: &[Group],
        temperature: f64,
        dropout_seed: u64,
        activation_cache: Option<&'a ActivationCache>,
    ) -> Result<ForwardPass<'a>> {
        let batch = self.pack(groups)?;
        let activation_cache = activation_cache.filter(|_| !self.has_dropout());
        match activation_cache
            .and_then(|activation_cache| activation_cache.packed(groups, &batch.output_rows))
        {
            Some(cached) => ForwardPass::from_cache(self, batch, temperature, cached),
            None => ForwardPass::new(self, batch, temperature, Some(dropout_seed)),
        }
    }
}

//! The model and tokenizer traits that training needs.

mod policy;
#[cfg(test)]
pub(crate) mod tests;
mod vision_policy;

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
pub use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt, RenderedChat};
pub use embodied_r_policy::weights::WriterRank;
pub use embodied_r_policy::{
    ActivationCacheOptions, CompletionOutput, FinishReason, GenerateOptions, GenerationRequest,
    GradientReadyHook, Group, LayerHook, Precision, Prompt, SamplingParams, TokenScores, Trainable,
};

pub use embodied_r_vision::MultimodalMessage;

pub use self::vision_policy::VisionPolicy;
use crate::error::Result;
use crate::images::RunImages;

/// A causal language model that generates, scores and trains.
///
/// Its parameters are shared: writes to the tensors of [`Model::parameters`] affect the next generation and forward
/// pass.
pub trait Model: Send + Sync + Sized {
    /// The gradients of the trainable parameters.
    type Gradients: NamedGradients;

    /// The rollout activations that the update reuses.
    type ActivationCache;

    /// Zero gradients.
    ///
    /// # Errors
    /// They cannot be allocated.
    fn zero_gradients(&self) -> Result<Self::Gradients>;

    /// Scores every completion token, without saving activations.
    ///
    /// # Errors
    /// A token is not in the vocabulary, or a tensor operation fails.
    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores>;

    /// Scores every completion token, calls `derivative` for the loss's derivative by the log-probabilities, and
    /// accumulates the gradients into `gradients`. It calls `on_final` as gradients become final.
    ///
    /// # Errors
    /// As [`Model::score`], and what `derivative` returns.
    fn backward(
        &self,
        groups: &[Group],
        training: &TrainingPass<'_, Self::ActivationCache>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()>;

    /// As [`Model::score`] for each of `parts`, the completions of one group that is too large for one pass.
    ///
    /// # Errors
    /// As [`Model::score`].
    fn score_chunks(
        &self,
        prompt: &Prompt,
        parts: &[&[Vec<u32>]],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        let score = |part: &&[Vec<u32>]| {
            let group = Group { prompt: prompt.clone(), completions: part.to_vec() };
            self.score(&[group], temperature)
        };
        parts.iter().map(score).collect()
    }

    /// As [`Model::backward`] for each of `parts`, the completions of one group that is too large for one pass;
    /// `derivative` also receives the index of the part.
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn backward_chunks(
        &self,
        prompt: &Prompt,
        parts: &[&[Vec<u32>]],
        training: &TrainingPass<'_, Self::ActivationCache>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        for (index, part) in parts.iter().enumerate() {
            let group = Group { prompt: prompt.clone(), completions: part.to_vec() };
            let derivative = &mut |scores: &TokenScores| derivative(index, scores);
            let is_last = index + 1 == parts.len();
            let on_final = &mut |from: usize| {
                if is_last {
                    on_final(from)
                }
            };
            self.backward(&[group], training, gradients, derivative, on_final)?;
        }
        Ok(())
    }

    /// Completes the gradients after the last pass of a step, such as those below the decoder. It calls `on_final` as
    /// gradients become final.
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn finish_backward(
        &self,
        _gradients: &mut Self::Gradients,
        _on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        Ok(())
    }

    /// Called after the parameters have changed.
    fn parameters_changed(&self) {}

    /// The learning rate of a parameter, relative to that of the run.
    fn learning_rate_scale(&self, _name: &str) -> f64 {
        1.0
    }

    /// Prepares for a coming step with these prompts while the current one goes on, such as by decoding images. It changes
    /// no result.
    fn prefetch(&self, _prompts: &[&Prompt]) {}

    /// The model with a callback after each layer's pass, which frozen copies inherit.
    #[must_use]
    fn with_layer_hook(self, on_layer: LayerHook) -> Self;

    /// The context length: the most tokens of a prompt with its completion.
    fn context_length(&self) -> usize {
        usize::MAX
    }

    /// Matmul FLOPs of a forward pass over `groups`; 0 if unknown.
    fn forward_flops(&self, _groups: &[Group]) -> f64 {
        0.0
    }

    /// An empty activation cache.
    fn activation_cache(&self, options: ActivationCacheOptions) -> Self::ActivationCache;

    /// Samples completions; `on_step` is called after each decoding step. The activation cache, if given, is overwritten
    /// with what the update can reuse and returned, unless the update would compute something else.
    ///
    /// # Errors
    /// A prompt is empty or too long, or a tensor operation fails.
    fn generate(
        &self,
        requests: &[GenerationRequest],
        sampling: &SamplingParams,
        options: GenerateOptions<Self::ActivationCache>,
        on_step: &dyn Fn(),
    ) -> Result<(Samples, Option<Self::ActivationCache>)>;

    /// All trainable tensors by checkpoint name, in a fixed order.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// All tensors, trained or frozen, by name.
    fn all_tensors(&self) -> Vec<(String, Tensor)> {
        self.parameters()
    }

    /// An independent, frozen copy in the same precision. Frozen parameters are shared.
    ///
    /// # Errors
    /// It cannot be allocated.
    fn frozen_copy(&self) -> Result<Self>;

    /// Loads a frozen copy: an earlier state of this model from a folder of [`Model::save`], or the base model. Frozen
    /// parameters are shared.
    ///
    /// # Errors
    /// As [`Model::load`].
    fn load_frozen(&self, dir: &Path) -> Result<Self>;

    /// Saves configuration and weights in Hugging Face's layout, or an adapter in `peft`'s; the tokenizer is saved
    /// separately. With several writers, each writes its `share`.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, dir: &Path, share: WriterRank) -> Result<()>;

    /// Loads a trainable model: one that [`Model::save`] wrote in a run from `load_options.base`, or the base model
    /// itself.
    ///
    /// # Errors
    /// A file cannot be read or does not match the others.
    fn load(dir: &Path, load_options: &LoadOptions<'_>) -> Result<Self>;
}

/// The samples of each request.
pub type Samples = Vec<Vec<CompletionOutput>>;

/// Options of a training pass.
#[derive(Debug, PartialEq)]
pub struct TrainingPass<'a, T> {
    /// Temperature of the log-probabilities.
    pub temperature: f64,
    /// Seed of the dropout masks, combined with the tokens.
    pub dropout_seed: u64,
    /// The activation cache of the rollout that sampled the completions, if the parameters have not changed since.
    pub activation_cache: Option<&'a T>,
}

/// Options for loading a run's models.
#[derive(Debug, Clone)]
pub struct LoadOptions<'a> {
    /// Folder of the base model.
    pub base: &'a Path,
    /// Matmul precision.
    pub precision: Precision,
    /// Budget in bytes for activations saved by the forward pass; it changes no result.
    pub activation_bytes: usize,
    /// The trainable parameters.
    pub trainable: Trainable,
    /// Seed of a new adapter's initialization.
    pub seed: u64,
    /// The device.
    pub device: Device,
    /// The images of the data, for a vision-language model.
    pub images: Option<Arc<RunImages>>,
}

impl LoadOptions<'_> {
    /// The same options on another device.
    pub fn on_device(self, device: &Device) -> Self {
        Self { device: device.clone(), ..self }
    }
}

/// The gradients of a model's parameters; their tensors keep their memory.
pub trait NamedGradients: Sync {
    /// The gradient of one parameter.
    fn get(&self, name: &str) -> Option<&Tensor>;

    /// The global gradient norm; non-finite if any element is.
    ///
    /// # Errors
    /// A tensor operation fails.
    fn norm(&self) -> Result<f64>;
}

/// A tokenizer with its chat template.
pub trait ChatTokenizer: Send + Sync {
    /// Renders a conversation with the chat template.
    ///
    /// # Errors
    /// The template rejects the messages.
    fn apply_chat_template(
        &self,
        messages: &[ChatMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat>;

    /// Renders a conversation with placeholders of images and videos with the chat template.
    ///
    /// # Errors
    /// The template rejects the messages.
    fn apply_multimodal_template(
        &self,
        messages: &[MultimodalMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat>;

    /// A text in which no special token is recognized.
    fn plain(&self, text: &str) -> RenderedChat;

    /// Encodes a rendered conversation: special tokens in its messages are plain text.
    ///
    /// # Errors
    /// The tokenizer fails.
    fn encode(&self, chat: &RenderedChat) -> Result<Vec<u32>>;

    /// Decodes tokens, skipping special ones.
    ///
    /// # Errors
    /// The tokenizer fails.
    fn decode(&self, ids: &[u32]) -> Result<String>;

    /// The stop token ids.
    fn stop_ids(&self) -> &[u32];

    /// Saves the tokenizer's files into a model's folder.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, dir: &Path) -> Result<()>;
}

/// The tokens of a system message, if there is one, and a user message, with the generation prompt.
///
/// # Errors
/// The template or the tokenizer fails.
pub fn chat_prompt(text: &dyn ChatTokenizer, system: Option<&str>, user: &str) -> Result<Vec<u32>> {
    let system = system.map(ChatMessage::system);
    let messages: Vec<ChatMessage> = system.into_iter().chain([ChatMessage::user(user)]).collect();
    text.encode(&text.apply_chat_template(&messages, GenerationPrompt::Append)?)
}

/// The text of a prompt's last tokens, enough for a `<think>` that the chat template opens, even one of bytes.
///
/// # Errors
/// The tokenizer fails.
pub fn prompt_end(text: &dyn ChatTokenizer, prompt: &Prompt) -> Result<String> {
    let ids = prompt.ids();
    text.decode(&ids[ids.len().saturating_sub(32)..])
}

/// The decoded text of a completion, without its stop token.
///
/// # Errors
/// The tokenizer fails.
pub fn completion_text(text: &dyn ChatTokenizer, ids: &[u32]) -> Result<String> {
    let stopped = ids.last().is_some_and(|id| text.stop_ids().contains(id));
    text.decode(&ids[..ids.len() - usize::from(stopped)])
}

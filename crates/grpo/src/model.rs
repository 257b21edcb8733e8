//! What training needs of a model and its text, apart from how they work.

mod policy;
#[cfg(test)]
pub(crate) mod toy;

use std::path::Path;

use candle_core::Tensor;
pub use embodied_r_policy::tokenizer::{ChatMessage, Generation};
pub use embodied_r_policy::{Finish, Group, Precision, Request, Sample, Sampling, TokenScores};

use crate::error::Result;

/// A causal language model that generates, scores and learns.
///
/// Its parameters are shared: what is written into the tensors that [`Model::parameters`] gives is
/// what the next generation and the next forward use.
pub trait Model: Send + Sync + Sized {
    /// The gradients of all parameters.
    type Gradients: Gradients;

    /// Gradients of 0.
    ///
    /// # Errors
    /// They cannot be allocated.
    fn zero_gradients(&self) -> Result<Self::Gradients>;

    /// Scores every completion token, without anything that a backward would need.
    ///
    /// # Errors
    /// A token is not in the vocabulary, or a tensor operation fails.
    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores>;

    /// Scores every completion token, asks `derivative` for the loss's derivative by the
    /// log-probabilities, and adds the gradients that follow to `gradients`.
    ///
    /// # Errors
    /// As [`Model::score`], and what `derivative` returns.
    fn backward(
        &self,
        groups: &[Group],
        temperature: f64,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
    ) -> Result<()>;

    /// Samples completions, with products in `precision` or in the model's own; `done` hears the number
    /// of new tokens from time to time.
    ///
    /// # Errors
    /// A prompt is empty or too long, or a tensor operation fails.
    fn generate(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        precision: Option<Precision>,
        done: &dyn Fn(u64),
    ) -> Result<Vec<Vec<Sample>>>;

    /// All trainable tensors by their names in checkpoints, in a fixed order.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// A copy that does not change with this one, in the same precision.
    ///
    /// # Errors
    /// It cannot be allocated.
    fn frozen_copy(&self) -> Result<Self>;

    /// Writes configuration and weights to a folder in Hugging Face's layout; the tokenizer is apart.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, dir: &Path) -> Result<()>;

    /// Reads a model that [`Model::save`] wrote, or one like it, to sample, score and learn in
    /// `precision`.
    ///
    /// # Errors
    /// A file cannot be read or does not fit the others.
    fn load(dir: &Path, precision: Precision) -> Result<Self>;
}

/// The gradients of a model's parameters.
pub trait Gradients: Sync {
    /// Sets all to 0.
    ///
    /// # Errors
    /// A tensor operation fails.
    fn clear(&mut self) -> Result<()>;

    /// The gradient of one parameter.
    fn get(&self, name: &str) -> Option<&Tensor>;

    /// The Euclidean norm over all parameters; not finite if any number is not.
    ///
    /// # Errors
    /// A tensor operation fails.
    fn norm(&self) -> Result<f64>;
}

/// Text in and out of a model's tokens.
pub trait Text: Send + Sync {
    /// A conversation as the model's chat template writes it.
    ///
    /// # Errors
    /// The template refuses the messages.
    fn render(&self, messages: &[ChatMessage], generation: Generation) -> Result<String>;

    /// The tokens of a rendered text.
    ///
    /// # Errors
    /// The tokenizer fails.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// The text of tokens, without special ones.
    ///
    /// # Errors
    /// The tokenizer fails.
    fn decode(&self, ids: &[u32]) -> Result<String>;

    /// The tokens that end a completion.
    fn stop_ids(&self) -> &[u32];

    /// Writes the tokenizer's files into a model's folder.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, dir: &Path) -> Result<()>;
}

/// The tokens of a chat up to where the assistant begins: a system message and a user's.
///
/// # Errors
/// The template or the tokenizer fails.
pub fn chat_prompt(text: &dyn Text, system: &str, user: &str) -> Result<Vec<u32>> {
    let messages = [ChatMessage::system(system), ChatMessage::user(user)];
    text.encode(&text.render(&messages, Generation::Prompt)?)
}

/// The text of a completion: its tokens without the stop token.
///
/// # Errors
/// The tokenizer fails.
pub fn completion_text(text: &dyn Text, ids: &[u32]) -> Result<String> {
    let stopped = ids.last().is_some_and(|id| text.stop_ids().contains(id));
    text.decode(&ids[..ids.len() - usize::from(stopped)])
}

//! What training needs of a model and its text, apart from how they work.

mod policy;
#[cfg(test)]
pub(crate) mod toy;

use std::path::Path;

use candle_core::{Device, Tensor};
pub use embodied_r_policy::tokenizer::{ChatMessage, Generation};
pub use embodied_r_policy::weights::Share;
pub use embodied_r_policy::{
    Finish, Group, OnFinal, OnLayer, Precision, Request, Sample, Sampling, TapeOptions,
    TokenScores, Trainable,
};

use crate::error::Result;

/// A causal language model that generates, scores and learns.
///
/// Its parameters are shared: what is written into the tensors that [`Model::parameters`] gives is
/// what the next generation and the next forward use.
pub trait Model: Send + Sync + Sized {
    /// The gradients of the parameters that are trained.
    type Gradients: Gradients;

    /// What a rollout has computed that the update would compute again.
    type Tape;

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
    /// log-probabilities, and adds the gradients that follow to `gradients`. On its way it tells `on_final` what it will not
    /// touch again.
    ///
    /// # Errors
    /// As [`Model::score`], and what `derivative` returns.
    fn backward(
        &self,
        groups: &[Group],
        training: &Training<'_, Self::Tape>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
        on_final: &mut OnFinal<'_>,
    ) -> Result<()>;

    /// As [`Model::score`] for each of `parts`, the completions of one group that are too many for one
    /// pass.
    ///
    /// # Errors
    /// As [`Model::score`].
    fn score_parts(
        &self,
        prompt: &[u32],
        parts: &[Vec<Vec<u32>>],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        let score = |part: &Vec<Vec<u32>>| {
            let group = Group { prompt: prompt.to_vec(), completions: part.clone() };
            self.score(&[group], temperature)
        };
        parts.iter().map(score).collect()
    }

    /// As [`Model::backward`] for each of `parts`, the completions of one group that are too many for
    /// one pass; `derivative` also gets the part's number.
    ///
    /// # Errors
    /// As [`Model::backward`].
    fn backward_parts(
        &self,
        prompt: &[u32],
        parts: &[Vec<Vec<u32>>],
        training: &Training<'_, Self::Tape>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
        on_final: &mut OnFinal<'_>,
    ) -> Result<()> {
        for (index, part) in parts.iter().enumerate() {
            let group = Group { prompt: prompt.to_vec(), completions: part.clone() };
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

    /// The same model, which calls `on_layer` as its passes get on, and so do frozen copies of it.
    #[must_use]
    fn with_on_layer(self, on_layer: OnLayer) -> Self;

    /// Multiplications and additions in the products of a forward pass over `groups`; 0 if unknown.
    fn forward_flops(&self, _groups: &[Group]) -> f64 {
        0.0
    }

    /// An empty tape.
    fn tape(&self, options: TapeOptions) -> Self::Tape;

    /// Samples completions, with products in some precision or in the model's own; `on_step` is called as tokens come. The
    /// tape, if there is one, takes what
    /// the update needs of it in the place of what it held; it is given back unless the update would compute something
    /// else.
    ///
    /// # Errors
    /// A prompt is empty or too long, or a tensor operation fails.
    fn generate(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        with: (Option<Precision>, Option<Self::Tape>),
        on_step: &dyn Fn(),
    ) -> Result<(Samples, Option<Self::Tape>)>;

    /// All trainable tensors by their names in checkpoints, in a fixed order.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// A copy that does not change with this one, in the same precision. What is not trained is shared.
    ///
    /// # Errors
    /// It cannot be allocated.
    fn frozen_copy(&self) -> Result<Self>;

    /// Reads a copy that does not change: an earlier state of this model from a folder of [`Model::save`], or
    /// the model that its run began with. What is not trained is shared.
    ///
    /// # Errors
    /// As [`Model::load`].
    fn load_frozen(&self, dir: &Path) -> Result<Self>;

    /// Writes configuration and weights to a folder in Hugging Face's layout, or an adapter in `peft`'s; the
    /// tokenizer is apart. Of several writers this one writes its share, and all of them make the folder whole.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, dir: &Path, share: Share) -> Result<()>;

    /// Reads a model to sample, score and learn: one that [`Model::save`] wrote in a run that began with
    /// `loading.base`, or that one itself.
    ///
    /// # Errors
    /// A file cannot be read or does not fit the others.
    fn load(dir: &Path, loading: &Loading<'_>) -> Result<Self>;
}

/// The samples of each request.
pub type Samples = Vec<Vec<Sample>>;

/// How a pass of training is made.
#[derive(Debug, PartialEq)]
pub struct Training<'a, T> {
    /// Temperature of the log-probabilities.
    pub temperature: f64,
    /// What training leaves to chance, such as dropout, follows from it and from the tokens.
    pub noise: u64,
    /// Of the rollout that drew the completions, if the parameters are those that it used.
    pub tape: Option<&'a T>,
}

/// How a run's models are read.
#[derive(Debug, Clone)]
pub struct Loading<'a> {
    /// Folder of the model that the run begins with, or began with.
    pub base: &'a Path,
    /// What products with weights are made of.
    pub precision: Precision,
    /// Bytes that a backward may keep of what its forward computed; it changes no result.
    pub activation_bytes: usize,
    /// What is trained.
    pub trainable: Trainable,
    /// From which fresh numbers of an adapter follow.
    pub seed: u64,
    /// Where it computes.
    pub device: Device,
}

impl Loading<'_> {
    /// The same on another device.
    pub fn on(self, device: &Device) -> Self {
        Self { device: device.clone(), ..self }
    }
}

/// The gradients of a model's parameters: tensors of the same memory as long as they live.
pub trait Gradients: Sync {
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

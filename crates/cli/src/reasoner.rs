//! The model that answers the questions of `infer`, `eval` and `filter`: in this process, or behind an API.

use embodied_r_data::Progress;
use embodied_r_data::multimodal::SampleSet;
use serde_json::{Map, Value};

use crate::api_generator::{self, ApiGenerator, Failures};
use crate::args::reasoner::ReasonerArgs;
use crate::asked::{Asked, BatchPrompt};
use crate::batch_generator::BatchGenerator;
use crate::direct::Direct;
use crate::exit::{self, Usage};

/// A model and its sampling parameters.
pub(crate) enum Reasoner {
    /// In this process.
    Local(Box<BatchGenerator>),
    /// Behind an API.
    Api(Box<ApiGenerator>),
}

impl Reasoner {
    /// The model of the options; weights are not loaded yet, and nothing is sent.
    ///
    /// # Errors
    /// `--model` is missing, the local model or its tokenizer does not exist, a base URL is not one, or a local model
    /// that is to see the images itself (`direct`) does not.
    pub(crate) fn new(args: &ReasonerArgs, direct: Option<&Direct>) -> anyhow::Result<Self> {
        let ReasonerArgs { model, api } = args;
        let name = model.model.as_deref().ok_or_else(|| Usage("`--model` is missing".into()))?;
        Ok(match api.is_given() {
            true => Self::Api(Box::new(ApiGenerator::new(api, name, &model.decoding, direct)?)),
            false => Self::Local(Box::new(BatchGenerator::new(model, direct.cloned())?)),
        })
    }

    /// Whether it is in this process.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// The questions of `set` for this model, which sees their images and videos.
    ///
    /// # Errors
    /// As [`Direct::lay_out`], or this model does not see.
    pub(crate) fn lay_out(&self, set: SampleSet) -> anyhow::Result<Asked> {
        match self {
            Self::Local(generator) => generator.lay_out(set),
            Self::Api(generator) => generator.lay_out(set),
        }
    }

    /// The settings that completions depend on, by name.
    ///
    /// # Errors
    /// The local model cannot be downloaded or read.
    pub(crate) fn settings(&self) -> anyhow::Result<Map<String, Value>> {
        match self {
            Self::Local(generator) => generator.settings(),
            Self::Api(generator) => Ok(generator.settings()),
        }
    }

    /// Samples completions of each prompt; `done(position, completions)` is called as they finish, with the position in
    /// `prompts`, and without completions if the prompt exceeds the context length. Returns the questions whose requests
    /// failed.
    ///
    /// # Errors
    /// The model cannot be loaded or reached, the run is interrupted, or `done` fails.
    pub(crate) fn sample(
        &self,
        prompts: &[BatchPrompt<'_>],
        samples: usize,
        progress: &dyn Progress,
        done: impl FnMut(usize, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Failures> {
        match self {
            Self::Local(generator) => {
                generator.sample(prompts, samples, progress, done)?;
                Ok(Failures::default())
            }
            Self::Api(generator) => generator.sample(prompts, samples, progress, done),
        }
    }

    /// As [`Self::sample`], if every question is to have completions.
    ///
    /// # Errors
    /// As [`Self::sample`], or a question's request failed.
    pub(crate) fn sample_all(
        &self,
        prompts: &[BatchPrompt<'_>],
        samples: usize,
        progress: &dyn Progress,
        mut done: impl FnMut(usize, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut answered = 0usize;
        let failures = self.sample(prompts, samples, progress, |position, texts| {
            answered += 1;
            done(position, texts)
        })?;
        match failures.first {
            None => Ok(()),
            Some(error) if answered == 0 => Err(api_generator::explain(error)),
            Some(_) => Err(exit::hint(
                format!("{} of {} questions failed", failures.count, prompts.len()),
                api_generator::RESUME,
            )),
        }
    }
}

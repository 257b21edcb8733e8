//! The model that answers the questions of `infer` and `eval`: in this process, or behind an API.

use std::cell::OnceCell;

use embodied_r_data::Progress;
use embodied_r_policy::hub;
use embodied_r_policy::tokenizer::Tokenizer;
use serde_json::{Map, Value};

use crate::api_generator::{self, ApiGenerator};
use crate::args::model::ModelArgs;
use crate::args::reasoner::ReasonerArgs;
use crate::batch_generator::{BatchGenerator, BatchPrompt};
use crate::exit::{self, Usage};

/// A model and its sampling parameters.
pub(crate) enum Reasoner {
    /// In this process.
    Local(Box<LocalReasoner>),
    /// Behind an API.
    Api(Box<ApiGenerator>),
}

/// A model in this process, loaded when it is first needed.
pub(crate) struct LocalReasoner {
    args: ModelArgs,
    generator: OnceCell<BatchGenerator>,
}

impl Reasoner {
    /// The model of the options; weights are not loaded yet, and nothing is sent.
    ///
    /// # Errors
    /// `--model` is missing, the local model or its tokenizer does not exist, or a base URL is not one.
    pub(crate) fn new(args: &ReasonerArgs) -> anyhow::Result<Self> {
        let ReasonerArgs { model, api } = args;
        let name = model.model.as_deref().ok_or_else(|| Usage("`--model` is missing".into()))?;
        if api.is_given() {
            let generator = ApiGenerator::new(api, name, &model.decoding)?;
            return Ok(Self::Api(Box::new(generator)));
        }
        if model.batch == 0 {
            return Err(Usage("`--batch` must be at least 1, not 0".into()).into());
        }
        Tokenizer::from_dir(&hub::resolve(name, model.revision.as_deref())?)?;
        let local = LocalReasoner { args: model.clone(), generator: OnceCell::new() };
        Ok(Self::Local(Box::new(local)))
    }

    /// The settings that completions depend on, by name.
    ///
    /// # Errors
    /// The local model cannot be downloaded or read.
    pub(crate) fn settings(&self) -> anyhow::Result<Map<String, Value>> {
        match self {
            Self::Local(local) => BatchGenerator::settings(&local.args),
            Self::Api(generator) => Ok(generator.settings()),
        }
    }

    /// Samples completions of each prompt; `done(position, completions)` is called as they finish, with the position in
    /// `prompts`, and without completions if the prompt exceeds the context length.
    ///
    /// # Errors
    /// The model cannot be loaded, a question has no completions, the run is interrupted, or `done` fails.
    pub(crate) fn sample(
        &self,
        prompts: &[BatchPrompt<'_>],
        samples: usize,
        progress: &dyn Progress,
        mut done: impl FnMut(usize, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Local(local) => local.generator()?.sample(prompts, samples, progress, done),
            Self::Api(generator) => {
                let mut answered = 0usize;
                let failures =
                    generator.sample(prompts, samples, progress, |position, texts| {
                        answered += 1;
                        done(position, texts)
                    })?;
                match failures.first {
                    None => Ok(()),
                    Some(error) if answered == 0 => Err(api_generator::explain(error)),
                    Some(_) => Err(exit::hint(
                        format!("{} of {} questions failed", failures.count, prompts.len()),
                        "finished questions are kept; fix the cause and run the same command again to resume",
                    )),
                }
            }
        }
    }
}

impl LocalReasoner {
    fn generator(&self) -> anyhow::Result<&BatchGenerator> {
        if let Some(loaded) = self.generator.get() {
            return Ok(loaded);
        }
        let loaded = BatchGenerator::load(&self.args)?;
        Ok(self.generator.get_or_init(|| loaded))
    }
}

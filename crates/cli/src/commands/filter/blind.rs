//! The blind model, which answers without captions: in this process, or behind an API.

use embodied_r_data::{Progress, prompts};
use serde_json::{Map, Value, json};

use super::BlindQuestion;
use crate::api_generator::ApiGenerator;
use crate::args::filter::{FilterArgs, SamplingArgs};
use crate::args::model::{DecodingArgs, ModelArgs, WeightArgs};
use crate::batch_generator::{BatchGenerator, BatchPrompt};
use crate::hub;

const BATCH: usize = 16;

/// A model and its sampling parameters.
pub(super) struct BlindModel {
    tries: usize,
    decoding: DecodingArgs,
    backend: Backend,
}

/// The backend of the model.
enum Backend {
    Local(Box<ModelArgs>),
    Api { generator: Box<ApiGenerator>, model: String },
}

impl BlindModel {
    pub(super) fn new(args: &FilterArgs) -> anyhow::Result<Self> {
        let SamplingArgs { temperature, max_new_tokens, seed, system_prompt } = &args.sampling;
        let system =
            system_prompt.clone().unwrap_or_else(|| prompts::blind_system_prompt().to_owned());
        let decoding = DecodingArgs {
            temperature: Some(*temperature),
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: *max_new_tokens,
            seed: *seed,
            system_prompt: Some(system),
        };
        let blind = &args.blind;
        let backend = match args.api.is_given() {
            true => {
                let generator = ApiGenerator::new(&args.api, &blind.model, &decoding)?;
                Backend::Api { generator: Box::new(generator), model: blind.model.clone() }
            }
            false => Backend::Local(Box::new(ModelArgs {
                model: Some(blind.model.clone()),
                revision: blind.revision.clone(),
                weights: WeightArgs {
                    precision: blind.precision,
                    quantize: None,
                    device: blind.device.unwrap_or_default(),
                },
                decoding: decoding.clone(),
                batch: blind.batch.unwrap_or(BATCH),
            })),
        };
        Ok(Self { tries: args.tries, decoding, backend })
    }

    /// The settings that the responses depend on.
    pub(super) fn settings(&self) -> anyhow::Result<Map<String, Value>> {
        let (model, precision) = match &self.backend {
            Backend::Local(args) => {
                let dir = hub::decoder(
                    args.model.as_deref().unwrap_or_default(),
                    args.revision.as_deref(),
                )?;
                (
                    embodied_r_policy::fingerprint(&dir)?,
                    Some(args.weights.precision_on(args.weights.device).name()),
                )
            }
            Backend::Api { model, .. } => (model.clone(), None),
        };
        Ok(Map::from_iter([
            ("model".to_owned(), json!(model)),
            ("precision".to_owned(), json!(precision)),
            ("tries".to_owned(), json!(self.tries)),
            ("temperature".to_owned(), json!(self.decoding.temperature)),
            ("max_new_tokens".to_owned(), json!(self.decoding.max_new_tokens)),
            ("seed".to_owned(), json!(self.decoding.seed)),
            ("system_prompt".to_owned(), json!(self.decoding.system_prompt)),
        ]))
    }

    /// Samples all tries of each question and calls `done(question, responses)` as they finish. Questions whose
    /// requests fail are skipped.
    pub(super) fn sample<'a>(
        &self,
        questions: &[&'a BlindQuestion<'a>],
        progress: &dyn Progress,
        mut done: impl FnMut(&'a BlindQuestion<'a>, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let prompts: Vec<BatchPrompt<'_>> = questions
            .iter()
            .map(|question| BatchPrompt {
                index: question.index,
                id: question.id.clone(),
                text: question.text,
            })
            .collect();
        let answered = |position: usize, responses| done(questions[position], responses);
        match &self.backend {
            Backend::Local(args) => {
                BatchGenerator::load(args)?.sample(&prompts, self.tries, progress, answered)
            }
            Backend::Api { generator, .. } => {
                generator.sample(&prompts, self.tries, progress, answered)?;
                Ok(())
            }
        }
    }
}

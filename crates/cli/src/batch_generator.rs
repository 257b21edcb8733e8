//! Batch generation with a local model, for `infer`, `eval`, `filter` and `robot bench`.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use embodied_r_data::Progress;
use embodied_r_data::multimodal::SampleSet;
use embodied_r_grpo::data::samples::question_prompt;
use embodied_r_grpo::model::prompt_end;
use embodied_r_inference::{BlockingEngine, Completion, Model, PromptRequest};
use embodied_r_media::store::ImageCounts;
use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_policy::{
    EngineOptions, FingerprintExtent, ModelConfig, Prompt, SamplingParams, WeightPlacement,
    fingerprint,
};
use embodied_r_rewards::prompt_end::whole_reply;
use serde_json::{Map, Value, json};

use crate::args::model::{ModelArgs, QuantizeName};
use crate::asked::{Asked, BatchPrompt, SeenPrompt};
use crate::direct::{self, Direct};
use crate::exit::{self, Usage};
use crate::hub;
use crate::interrupt;

/// The most tokens of prompts with images whose embeddings are in memory at once: 1/4 GB at a hidden size of 2,048.
const EMBEDDED_TOKENS: usize = 1 << 15;

/// Why a model cannot be loaded, with a hint.
fn cannot_load(error: &dyn std::error::Error) -> anyhow::Error {
    exit::hint(error.to_string(), "`embodied-r doctor --model DIR` lists missing files")
}

/// A model in this process, loaded when it is first needed.
pub(crate) struct BatchGenerator {
    args: ModelArgs,
    /// How the model sees images and videos itself.
    direct: Option<Direct>,
    model: OnceCell<(Model, WeightPlacement)>,
}

impl BatchGenerator {
    /// The model of the options; its weights are not loaded yet.
    ///
    /// # Errors
    /// The batch size is 0, `--model` is missing, the model or its tokenizer does not exist, a sampling
    /// parameter is out of bounds, a text model is to see, or the weights contradict the configuration.
    pub(crate) fn new(args: &ModelArgs, direct: Option<Direct>) -> anyhow::Result<Self> {
        if args.batch == 0 {
            return Err(Usage("`--batch` must be at least 1, not 0".into()).into());
        }
        let new = Self { args: args.clone(), direct, model: OnceCell::new() };
        if let Some(direct) = &new.direct {
            direct.check_model(&new.dir()?, args.model.as_deref().unwrap_or_default())?;
        }
        new.args.decoding.tokenizer(&new.dir()?)?;
        new.args.decoding.sampling_params(Some(&new.dir()?))?;
        ModelConfig::checked(&new.dir()?).map_err(|error| cannot_load(&error))?;
        Ok(new)
    }

    fn dir(&self) -> anyhow::Result<PathBuf> {
        let ModelArgs { model, revision, .. } = &self.args;
        let name = model.as_deref().ok_or_else(|| Usage("`--model` is missing".into()))?;
        Ok(match self.direct {
            Some(_) => hub::with_vision_encoder(name, revision.as_deref())?,
            None => hub::decoder(name, revision.as_deref())?,
        })
    }

    /// The questions of `set` for this model, which sees their images and videos.
    ///
    /// # Errors
    /// As [`Direct::lay_out`], or the model does not see.
    pub(crate) fn lay_out(&self, set: SampleSet) -> anyhow::Result<Asked> {
        let direct = self.direct.as_ref().ok_or_else(direct::not_given)?;
        direct.lay_out(set, direct.image_table(&self.dir()?)?)
    }

    fn model(&self) -> anyhow::Result<&(Model, WeightPlacement)> {
        if let Some(loaded) = self.model.get() {
            return Ok(loaded);
        }
        let placement = self.args.weights.placement()?;
        let dir = self.dir()?;
        let tokenizer = self.args.decoding.tokenizer(&dir)?;
        let loaded = Model::load_with(&dir, tokenizer, placement.clone());
        let loaded = loaded.map_err(|error| cannot_load(&error))?;
        Ok(self.model.get_or_init(|| (loaded, placement)))
    }

    /// The settings that the completions of [`Self::sample`] depend on, by name. Not the batch size: on a CPU a completion
    /// does not depend on the others in its batch, and on a GPU by rounding only.
    ///
    /// # Errors
    /// The model cannot be downloaded or read.
    pub(crate) fn settings(&self) -> anyhow::Result<Map<String, Value>> {
        let weights = &self.args.weights;
        let mut settings = Map::from_iter([
            ("model".to_owned(), json!(fingerprint(&self.dir()?, FingerprintExtent::Sampled)?)),
            ("precision".to_owned(), json!(weights.precision_on(weights.device).name())),
            ("quantize".to_owned(), json!(weights.quantize.map(QuantizeName::name))),
            ("device".to_owned(), json!(weights.device.name())),
        ]);
        let sampling = self.args.decoding.sampling_params(Some(&self.dir()?))?;
        settings.extend(self.args.decoding.settings(&sampling));
        settings.extend(self.direct.iter().flat_map(Direct::settings));
        Ok(settings)
    }

    /// Samples completions of each prompt in batches; `done(position, completions)` is called once for each of `prompts`,
    /// with its position. A completion begins with the `<think>` that its prompt opens. The completions of a prompt share
    /// its prefill. A prompt that leaves no room for a completion in the context has none and is reported.
    ///
    /// The random stream of a completion depends only on the seed, on `index` and on its number.
    pub(crate) fn sample(
        &self,
        prompts: &[BatchPrompt<'_>],
        samples: usize,
        progress: &dyn Progress,
        mut done: impl FnMut(usize, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (model, placement) = self.model()?;
        let images = prompts.iter().find_map(|prompt| prompt.seen).map(|seen| seen.images);
        let store = match (images, &self.direct) {
            (Some(images), Some(direct)) => {
                Some(direct.image_store(images, &self.dir()?, placement))
            }
            _ => None,
        };
        let ModelArgs { decoding, batch, .. } = &self.args;
        let stop_ids = model.tokenizer.stop_ids().to_vec();
        let sampling = decoding.sampling_params(Some(&self.dir()?))?;
        let sampling = Arc::new(SamplingParams { stop_ids, ..sampling });
        // One engine for all batches: it keeps the prefix that they share.
        let mut engine = BlockingEngine::new(model, EngineOptions::default())?;
        progress.start("answering", Some(prompts.len() as u64));
        let began = std::time::Instant::now();
        let (mut tokens, max_len) = (0, model.max_model_len());
        for (start, batch) in (0..).step_by(*batch).zip(prompts.chunks(*batch)) {
            // Where nothing before has handled Ctrl-C, it ends the process at once.
            if interrupt::is_requested() {
                return Err(interrupt::interrupted());
            }
            let (mut positions, mut requests) = (Vec::new(), Vec::new());
            for (position, prompted) in (start..).zip(batch) {
                let BatchPrompt { index, id, .. } = prompted;
                let prompt = self.prompt(model, prompted)?;
                if prompt.len() >= max_len {
                    progress.warn(&format!(
                        "question `{id}` is skipped and counts as wrong: its prompt has {} tokens, the context length of \
                         the model is {max_len}",
                        prompt.len()
                    ));
                    progress.advance(1);
                    done(position, Vec::new())?;
                    continue;
                }
                let stream = embodied_r_random::stream(&[decoding.seed, *index as u64]);
                positions.push((position, prompt_end(model.tokenizer.as_ref(), &prompt)?));
                requests.push(PromptRequest::new(prompt, samples, stream, &sampling));
            }
            let mut finished = 0;
            let on_step = |completions: &[Completion]| {
                let count = completions.iter().filter(|of| of.finish.is_some()).count();
                if count > finished {
                    progress.advance((count / samples - finished / samples) as u64);
                    let new: usize = completions.iter().map(|of| of.tokens).sum();
                    let rate = (tokens + new) as f64 / began.elapsed().as_secs_f64();
                    progress.message(&format!("{rate:.0} tokens/s"));
                    finished = count;
                }
                ControlFlow::Continue(())
            };
            let first = batch.first().map_or(0, |prompt| prompt.index);
            let completions = match &store {
                Some(store) => {
                    // The images of the next prompt are decoded while this one is encoded and answered.
                    let mut coming: VecDeque<Prompt> =
                        requests.iter().skip(1).map(|it| it.request.prompt.clone()).collect();
                    if let Some(first) = prompts.get(start + batch.len()) {
                        coming.push_back(self.prompt(model, first)?);
                    }
                    let embed = |prompt: Prompt| {
                        let next = coming.pop_front();
                        direct::embedded(&prompt, next.as_ref(), store)
                    };
                    engine.complete_embedded(requests, EMBEDDED_TOKENS, embed, on_step)
                }
                None => engine.complete(requests, on_step),
            };
            let completions = completions
                .with_context(|| format!("in the batch starting at question {first}"))?;
            tokens += completions.iter().map(|of| of.tokens).sum::<usize>();
            let mut texts = completions.into_iter().map(|of| of.text);
            for (position, end) in positions {
                let replies = texts.by_ref().take(samples);
                done(
                    position,
                    replies.map(|text| whole_reply(&end, &text).into_owned()).collect(),
                )?;
            }
        }
        progress.finish();
        if let Some(ImageCounts { encoded, from_memory, .. }) = store.map(|store| store.counts()) {
            tracing::info!(encoded, from_memory, "images of prompts");
        }
        Ok(())
    }

    /// The prompt of a question; images have no embeddings yet.
    fn prompt(&self, model: &Model, prompt: &BatchPrompt<'_>) -> anyhow::Result<Prompt> {
        let (system, tokenizer) = (self.args.decoding.system_prompt(), model.tokenizer.as_ref());
        match prompt.seen {
            Some(SeenPrompt { question, images }) => {
                Ok(question_prompt(question, &system, (tokenizer, images.processor()))?)
            }
            None => {
                let system = system.text(prompt.given).map(ChatMessage::system);
                let messages = system.into_iter().chain([ChatMessage::user(prompt.text)]);
                Ok(model.prompt(&messages.collect::<Vec<_>>(), &[])?.prompt)
            }
        }
    }
}

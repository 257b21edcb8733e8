//! Batch generation with a local model, for `infer`, `eval` and `filter`.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use embodied_r_data::Progress;
use embodied_r_inference::{BlockingEngine, Completion, Model, PromptRequest};
use embodied_r_policy::tokenizer::{ChatMessage, Tokenizer};
use embodied_r_policy::{EngineOptions, FingerprintExtent, fingerprint};
use serde_json::{Map, Value, json};

use crate::args::model::{ModelArgs, QuantizeName};
use crate::exit::{self, Usage};
use crate::hub;
use crate::interrupt;

/// A question to answer.
pub(crate) struct BatchPrompt<'a> {
    /// Its index in the question set.
    pub(crate) index: usize,
    /// Its identifier, for messages.
    pub(crate) id: String,
    /// The user message.
    pub(crate) text: &'a str,
}

/// A model in this process, loaded when it is first needed.
pub(crate) struct BatchGenerator {
    args: ModelArgs,
    model: OnceCell<Model>,
}

impl BatchGenerator {
    /// The model of the options; its weights are not loaded yet.
    ///
    /// # Errors
    /// The batch size is 0, `--model` is missing, or the model or its tokenizer does not exist.
    pub(crate) fn new(args: &ModelArgs) -> anyhow::Result<Self> {
        if args.batch == 0 {
            return Err(Usage("`--batch` must be at least 1, not 0".into()).into());
        }
        let new = Self { args: args.clone(), model: OnceCell::new() };
        Tokenizer::from_dir(&new.dir()?)?;
        Ok(new)
    }

    fn dir(&self) -> anyhow::Result<PathBuf> {
        let ModelArgs { model, revision, .. } = &self.args;
        let name = model.as_deref().ok_or_else(|| Usage("`--model` is missing".into()))?;
        Ok(hub::decoder(name, revision.as_deref())?)
    }

    fn model(&self) -> anyhow::Result<&Model> {
        if let Some(loaded) = self.model.get() {
            return Ok(loaded);
        }
        let loaded = Model::load(&self.dir()?, self.args.weights.placement()?);
        let loaded = loaded.map_err(|error| {
            let advice = "`embodied-r doctor --model DIR` lists missing files";
            exit::hint(error.to_string(), advice)
        })?;
        Ok(self.model.get_or_init(|| loaded))
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
        settings.extend(self.args.decoding.settings());
        Ok(settings)
    }

    /// Samples completions of each prompt in batches; `done(position, completions)` is called once for each of `prompts`,
    /// with its position. The completions of a prompt share its prefill. A prompt that leaves no room for a completion in
    /// the context has none and is reported.
    ///
    /// The random stream of a completion depends only on the seed, on `index` and on its number.
    pub(crate) fn sample(
        &self,
        prompts: &[BatchPrompt<'_>],
        samples: usize,
        progress: &dyn Progress,
        mut done: impl FnMut(usize, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let model = self.model()?;
        let ModelArgs { decoding, batch, .. } = &self.args;
        let sampling = Arc::new(decoding.sampling_params(model.tokenizer.stop_ids()));
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
            for (position, BatchPrompt { index, id, text }) in (start..).zip(batch) {
                let messages =
                    [ChatMessage::system(decoding.system_prompt()), ChatMessage::user(*text)];
                let prompt = model.prompt(&messages, &[])?.prompt;
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
                positions.push(position);
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
            let completions = engine
                .complete(requests, on_step)
                .with_context(|| format!("in the batch starting at question {first}"))?;
            tokens += completions.iter().map(|of| of.tokens).sum::<usize>();
            let mut texts = completions.into_iter().map(|of| of.text);
            for position in positions {
                done(position, texts.by_ref().take(samples).collect())?;
            }
        }
        progress.finish();
        Ok(())
    }
}

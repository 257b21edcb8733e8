//! Batch generation with a local model, for `infer`, `eval` and `filter`.

use std::sync::Arc;

use anyhow::Context;
use embodied_r_data::Progress;
use embodied_r_grpo::model::{ChatTokenizer, chat_prompt, completion_text};
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{
    FingerprintExtent, GenerateEvent, GenerationRequest, InferenceModel, SamplingParams,
    fingerprint,
};

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

/// A model with its tokenizer and sampling parameters.
pub(crate) struct BatchGenerator {
    model: Arc<InferenceModel>,
    tokenizer: Arc<Tokenizer>,
    system_prompt: String,
    sampling: SamplingParams,
    seed: u64,
    batch: usize,
}

impl BatchGenerator {
    /// Loads the model of the options.
    pub(crate) fn load(args: &ModelArgs) -> anyhow::Result<Self> {
        let batch = args.batch;
        if batch == 0 {
            return Err(Usage("`--batch` must be at least 1, not 0".into()).into());
        }
        let name = args.model.as_deref().ok_or_else(|| Usage("`--model` is missing".into()))?;
        let dir = hub::decoder(name, args.revision.as_deref())?;
        let tokenizer = Tokenizer::from_dir(&dir)?;
        let model = InferenceModel::load(&dir, args.weights.placement()?).map_err(|error| {
            let advice = "`embodied-r doctor --model DIR` lists missing files";
            exit::hint(error.to_string(), advice)
        })?;
        let sampling = args.decoding.sampling_params(tokenizer.stop_ids());
        Ok(Self {
            model: Arc::new(model),
            tokenizer: Arc::new(tokenizer),
            system_prompt: args.decoding.system_prompt().to_owned(),
            sampling,
            seed: args.decoding.seed,
            batch,
        })
    }

    /// The settings that the completions of [`Self::sample`] depend on, by name. Not the batch size: on a CPU a completion
    /// does not depend on the others in its batch, and on a GPU by rounding only.
    ///
    /// # Errors
    /// `--model` is missing, or the model cannot be downloaded or read.
    pub(crate) fn settings(args: &ModelArgs) -> anyhow::Result<Map<String, Value>> {
        let name = args.model.as_deref().ok_or_else(|| Usage("`--model` is missing".into()))?;
        let dir = hub::decoder(name, args.revision.as_deref())?;
        let weights = &args.weights;
        let mut settings = Map::from_iter([
            ("model".to_owned(), json!(fingerprint(&dir, FingerprintExtent::Sampled)?)),
            ("precision".to_owned(), json!(weights.precision_on(weights.device).name())),
            ("quantize".to_owned(), json!(weights.quantize.map(QuantizeName::name))),
            ("device".to_owned(), json!(weights.device.name())),
        ]);
        settings.extend(args.decoding.settings());
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
        progress.start("answering", Some(prompts.len() as u64));
        let text: &dyn ChatTokenizer = self.tokenizer.as_ref();
        let began = std::time::Instant::now();
        let (tokens, finished) = (std::cell::Cell::new(0usize), std::cell::Cell::new(0usize));
        let max_len = self.model.config().max_position_embeddings;
        for (start, batch) in (0..).step_by(self.batch).zip(prompts.chunks(self.batch)) {
            // Where nothing before has handled Ctrl-C, it ends the process at once.
            if interrupt::is_requested() {
                return Err(interrupt::interrupted());
            }
            let (mut positions, mut requests) = (Vec::new(), Vec::new());
            for (position, BatchPrompt { index, id, text: prompt }) in (start..).zip(batch) {
                let prompt = chat_prompt(text, &self.system_prompt, prompt)?;
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
                let stream = embodied_r_random::stream(&[self.seed, *index as u64]);
                positions.push(position);
                requests.push(GenerationRequest {
                    prompt: prompt.into(),
                    samples,
                    stream,
                    first_sample: 0,
                });
            }
            let on_event = |event| match event {
                GenerateEvent::Tokens(new) => tokens.set(tokens.get() + new),
                GenerateEvent::Finished { .. } => {
                    finished.set(finished.get() + 1);
                    progress.advance(u64::from(finished.get().is_multiple_of(samples)));
                    let rate = tokens.get() as f64 / began.elapsed().as_secs_f64();
                    progress.message(&format!("{rate:.0} tokens/s"));
                }
                _ => {}
            };
            let first = batch.first().map_or(0, |prompt| prompt.index);
            let answers = self
                .model
                .generate(&requests, &self.sampling, &on_event)
                .with_context(|| format!("in the batch starting at question {first}"))?;
            for (position, answers) in positions.into_iter().zip(answers) {
                let texts = answers.iter().map(|answer| completion_text(text, &answer.ids));
                done(position, texts.collect::<Result<_, _>>()?)?;
            }
        }
        progress.finish();
        Ok(())
    }
}

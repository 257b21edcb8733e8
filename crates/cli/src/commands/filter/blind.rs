//! The blind model, which answers without captions, or one that sees (`--direct`): in this process, or behind an API.

use embodied_r_data::multimodal::SampleSet;
use embodied_r_data::{Progress, prompts};
use embodied_r_policy::SamplingSettings;
use embodied_r_policy::tokenizer::ChatTemplateKwargs;
use serde_json::{Map, Value, json};

use super::question::BlindQuestion;
use crate::args::filter::{FilterArgs, SamplingArgs};
use crate::args::model::{DecodingArgs, GenerationConfig, ModelArgs, WeightArgs};
use crate::args::reasoner::ReasonerArgs;
use crate::args::system_prompt::SystemPromptArgs;
use crate::asked::{Asked, BatchPrompt};
use crate::direct::Direct;
use crate::reasoner::Reasoner;

const BATCH: usize = 16;

/// A model and its sampling parameters.
pub(super) struct BlindModel {
    tries: usize,
    reasoner: Reasoner,
}

impl BlindModel {
    pub(super) fn new(args: &FilterArgs, direct: Option<&Direct>) -> anyhow::Result<Self> {
        let SamplingArgs { temperature, max_new_tokens, seed, system_prompt, system_prompt_preset } =
            &args.sampling;
        let blind = direct.is_none().then(|| prompts::blind_system_prompt().to_owned());
        let system_prompt = system_prompt.clone().or(blind);
        let decoding = DecodingArgs {
            sampling: SamplingSettings {
                temperature: Some(*temperature),
                ..SamplingSettings::default()
            },
            generation_config: GenerationConfig::None,
            max_new_tokens: *max_new_tokens,
            seed: *seed,
            system: SystemPromptArgs {
                system_prompt,
                system_prompt_preset: system_prompt_preset.unwrap_or_default(),
            },
            chat_template_kwargs: ChatTemplateKwargs::default(),
        };
        let blind = &args.blind;
        let model = ModelArgs {
            model: Some(blind.model.clone()),
            revision: blind.revision.clone(),
            weights: WeightArgs {
                precision: blind.precision,
                quantize: None,
                device: blind.device.unwrap_or_default(),
            },
            decoding,
            batch: blind.batch.unwrap_or(BATCH),
        };
        let reasoner = Reasoner::new(&ReasonerArgs { model, api: args.api.clone() }, direct)?;
        Ok(Self { tries: args.tries, reasoner })
    }

    /// The questions of `set` for this model, which sees their images and videos.
    pub(super) fn lay_out(&self, set: SampleSet) -> anyhow::Result<Asked> {
        self.reasoner.lay_out(set)
    }

    /// The settings that the responses depend on.
    pub(super) fn settings(&self) -> anyhow::Result<Map<String, Value>> {
        let mut settings = self.reasoner.settings()?;
        settings.insert("tries".to_owned(), json!(self.tries));
        Ok(settings)
    }

    /// Samples all tries of each question and calls `done(question, responses)` as they finish. Questions whose
    /// requests fail are skipped.
    pub(super) fn sample<'a>(
        &self,
        questions: &[&'a BlindQuestion<'a>],
        progress: &dyn Progress,
        mut done: impl FnMut(&'a BlindQuestion<'a>, Vec<String>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let prompts: Vec<BatchPrompt<'_>> =
            questions.iter().map(|question| question.prompt()).collect();
        let answered = |position: usize, responses| done(questions[position], responses);
        self.reasoner.sample(&prompts, self.tries, progress, answered)?;
        Ok(())
    }
}

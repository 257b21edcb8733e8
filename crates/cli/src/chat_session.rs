//! A model that streams its completions: one side of a conversation.

mod thinking;

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use embodied_r_inference::{BlockingEngine, ChatPrompt, Model, PromptRequest};
use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_policy::{EngineOptions, SamplingParams};
use embodied_r_random::stream;
use embodied_r_vision::{
    ImageEmbeddings, MultimodalMessage, MultimodalPart, PixelOptions, VisionEncoder, VisionOptions,
    is_vision_language_model,
};
use signal_hook::consts::SIGINT;

use crate::args::model::{DecodingArgs, StoredModel};
use crate::hub;
use crate::terminal::{self, escaped};
use thinking::Dimmer;

/// What is printed of a completion while it is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Its text.
    Text,
    /// Nothing.
    Off,
}

/// Whether a vision-language model is given images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VisionMode {
    /// Yes, with these limits on their pixels.
    Enabled(PixelOptions),
    /// No; the vision encoder is not loaded.
    Disabled,
}

/// A turn of a conversation, with the images and videos that precede its text.
#[derive(Debug, Clone)]
pub(crate) struct ChatTurn {
    pub(crate) message: ChatMessage,
    pub(crate) images: Vec<ImageEmbeddings>,
}

impl From<ChatMessage> for ChatTurn {
    fn from(message: ChatMessage) -> Self {
        Self { message, images: Vec::new() }
    }
}

/// A model that streams its completions.
pub(crate) struct ChatSession {
    engine: BlockingEngine,
    model: Model,
    echo: Echo,
    sampling: Arc<SamplingParams>,
    seed: u64,
    /// Number of completions so far.
    completions: u64,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
    /// Whether reasoning is printed dimmed.
    dim_reasoning: bool,
}

impl ChatSession {
    /// Loads the model; from then on Ctrl-C stops generation instead of the program.
    pub(crate) fn load(
        stored: &StoredModel,
        decoding: &DecodingArgs,
        echo: Echo,
        vision: VisionMode,
    ) -> anyhow::Result<Self> {
        let revision = stored.revision.as_deref();
        let dir = match vision {
            VisionMode::Enabled(_) => hub::with_vision_encoder(&stored.model, revision)?,
            _ => hub::decoder(&stored.model, revision)?,
        };
        let mut sampling = decoding.sampling_params(Some(&dir))?;
        let placement = stored.weights.placement()?;
        let model = match vision {
            VisionMode::Enabled(pixels) => {
                let vision_encoder = match is_vision_language_model(&dir) {
                    true => {
                        let options = VisionOptions { placement: placement.clone(), pixels };
                        Some(Arc::new(VisionEncoder::load(&dir, &options)?))
                    }
                    false => None,
                };
                let model = Model::load_with(&dir, decoding.tokenizer(&dir)?, placement)?;
                if let Some(encoder) = &vision_encoder {
                    encoder.check_decoder(&dir, model.decoder.config().hidden_size)?;
                    encoder.vision_processor().check_tokenizer(&model.tokenizer)?;
                }
                Model { vision_encoder, ..model }
            }
            VisionMode::Disabled => Model::load_with(&dir, decoding.tokenizer(&dir)?, placement)?,
        };
        sampling.stop_ids = model.tokenizer.stop_ids().to_vec();
        let options = EngineOptions { max_num_seqs: 1, ..Default::default() };
        let engine = BlockingEngine::new(&model, options)?;
        let stop = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, stop.clone()).context("cannot handle Ctrl-C")?;
        let dim_reasoning = terminal::has_colors(&io::stdout()) && echo == Echo::Text;
        let sampling = Arc::new(sampling);
        Ok(Self {
            engine,
            model,
            echo,
            sampling,
            seed: decoding.seed,
            completions: 0,
            stop,
            dim_reasoning,
        })
    }

    /// The flag that Ctrl-C sets. It ends a completion, and stays set.
    pub(crate) fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// The model.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Maximum prompt length: the context length less the completion's limit, or less a quarter of the context if that
    /// is smaller.
    pub(crate) fn max_prompt_tokens(&self) -> usize {
        let most = self.model.max_model_len();
        most.saturating_sub(self.sampling.max_new_tokens.min(most / 4).max(1))
    }

    /// The prompt of a conversation.
    pub(crate) fn prompt(&self, turns: &[ChatTurn]) -> anyhow::Result<ChatPrompt> {
        let images: Vec<ImageEmbeddings> =
            turns.iter().flat_map(|turn| &turn.images).cloned().collect();
        if images.is_empty() {
            let messages: Vec<&ChatMessage> = turns.iter().map(|turn| &turn.message).collect();
            return Ok(self.model.prompt(&messages, &images)?);
        }
        let messages: Vec<MultimodalMessage> = turns.iter().map(multimodal).collect();
        Ok(self.model.prompt(&messages, &images)?)
    }

    /// Streams a completion to standard output and returns it. Ctrl-C ends it early.
    pub(crate) fn answer(&mut self, prompt: ChatPrompt) -> anyhow::Result<String> {
        let (dimmer, start) = Dimmer::after(prompt.chat.text());
        let mut dimmer = self.dim_reasoning.then_some(dimmer);
        let echoes = self.echo == Echo::Text;
        let mut print = |text: &str, last: bool| {
            if !echoes {
                return Ok(());
            }
            let text = escaped(text);
            let mut printed = match &mut dimmer {
                Some(dimmer) => dimmer.push(&text),
                None => text.into_owned(),
            };
            if last {
                printed.extend(dimmer.as_mut().map(Dimmer::finish));
                printed.push('\n');
            }
            let mut out = io::stdout().lock();
            out.write_all(printed.as_bytes()).and_then(|()| out.flush())
        };
        self.stop.store(false, Ordering::Relaxed);
        if self.dim_reasoning {
            io::stdout().write_all(start.as_bytes())?;
        }
        let stream = stream(&[self.seed, self.completions]);
        self.completions += 1;
        let request = PromptRequest::new(prompt.prompt, 1, stream, &self.sampling);
        let (mut printed, mut result) = (0, Ok(()));
        let completions = self.engine.complete(vec![request], |completions| {
            for completion in completions {
                result = print(&completion.text[printed..], false);
                printed = completion.text.len();
            }
            match result.is_err() || self.stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let text = completions?.into_iter().map(|completion| completion.text).collect::<String>();
        result?;
        print(&text[printed..], true)?;
        Ok(text)
    }
}

/// A turn as the chat templates of vision-language models expect it.
fn multimodal(turn: &ChatTurn) -> MultimodalMessage {
    let images = turn.images.iter().map(|image| match image.is_video() {
        true => MultimodalPart::Video,
        false => MultimodalPart::Image,
    });
    let text = MultimodalPart::Text { text: turn.message.content.clone() };
    MultimodalMessage { role: turn.message.role.clone(), content: images.chain([text]).collect() }
}

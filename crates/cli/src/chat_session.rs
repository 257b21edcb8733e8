//! A model that streams its completions: one side of a conversation.

mod thinking;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use embodied_r_policy::tokenizer::{
    ChatMessage, GenerationPrompt, RenderedChat, SpecialTokens, Tokenizer,
};
use embodied_r_policy::{
    Engine, EngineOptions, EngineOutput, GenerationRequest, InferenceModel, Prompt as ModelPrompt,
    SamplingParams, TextStream,
};
use embodied_r_random::stream;
use embodied_r_vision::{
    ImageEmbeddings, MultimodalMessage, MultimodalPart, VisionLanguageModel, VisionOptions,
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
    /// Yes; larger images are downscaled to `max_pixels`.
    Enabled { max_pixels: Option<usize> },
    /// No; the vision encoder is not loaded.
    Disabled,
}

/// A turn of a conversation, with the images that precede its text.
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
    engine: Engine,
    /// The model, if it accepts images.
    vision_model: Option<VisionLanguageModel>,
    echo: Echo,
    tokenizer: Arc<Tokenizer>,
    sampling: Arc<SamplingParams>,
    max_model_len: usize,
    seed: u64,
    /// Number of completions so far.
    completions: u64,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
    /// Whether reasoning is printed dimmed.
    dim_reasoning: bool,
}

/// A rendered prompt and its tokens.
pub(crate) struct Prompt {
    chat: RenderedChat,
    input: ModelPrompt,
}

impl AsRef<[u32]> for Prompt {
    fn as_ref(&self) -> &[u32] {
        self.input.ids()
    }
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
            VisionMode::Enabled { .. } => hub::with_vision_encoder(&stored.model, revision)?,
            _ => hub::decoder(&stored.model, revision)?,
        };
        let tokenizer = Arc::new(Tokenizer::from_dir(&dir)?);
        let sampling = decoding.sampling_params(tokenizer.stop_ids());
        sampling.check()?;
        let placement = stored.weights.placement()?;
        let vision_model = match vision {
            VisionMode::Enabled { max_pixels } if is_vision_language_model(&dir) => {
                let placement = placement.clone();
                Some(VisionLanguageModel::load(&dir, &VisionOptions { placement, max_pixels })?)
            }
            _ => None,
        };
        let model = match &vision_model {
            Some(model) => model.decoder().clone(),
            None => Arc::new(InferenceModel::load(&dir, placement)?),
        };
        let max_model_len = model.config().max_position_embeddings;
        let engine = Engine::new(model, EngineOptions { max_num_seqs: 1, ..Default::default() })?;
        let stop = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, stop.clone()).context("cannot handle Ctrl-C")?;
        let dim_reasoning = terminal::has_colors(&io::stdout()) && echo == Echo::Text;
        let sampling = Arc::new(sampling);
        Ok(Self {
            engine,
            vision_model,
            echo,
            tokenizer,
            sampling,
            max_model_len,
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

    /// The model, if it accepts images.
    pub(crate) fn vision_model(&self) -> Option<&VisionLanguageModel> {
        self.vision_model.as_ref()
    }

    /// Maximum prompt length: the context length less the completion's limit, or less a quarter of the context if that
    /// is smaller.
    pub(crate) fn max_prompt_tokens(&self) -> usize {
        let completion = self.sampling.max_new_tokens.min(self.max_model_len / 4).max(1);
        self.max_model_len.saturating_sub(completion)
    }

    /// The context length, in tokens.
    pub(crate) fn max_model_len(&self) -> usize {
        self.max_model_len
    }

    /// The prompt of a conversation.
    pub(crate) fn prompt(&self, turns: &[ChatTurn]) -> anyhow::Result<Prompt> {
        let images: Vec<ImageEmbeddings> =
            turns.iter().flat_map(|turn| &turn.images).cloned().collect();
        let encoder = self
            .vision_model()
            .filter(|_| !images.is_empty())
            .map(VisionLanguageModel::vision_encoder);
        let Some(encoder) = encoder else {
            let messages: Vec<&ChatMessage> = turns.iter().map(|turn| &turn.message).collect();
            let chat = self.tokenizer.apply_chat_template(&messages, GenerationPrompt::Append)?;
            let input = self.tokenizer.encode_chat(&chat)?.into();
            return Ok(Prompt { chat, input });
        };
        let messages: Vec<MultimodalMessage> = turns.iter().map(multimodal).collect();
        let chat = self.tokenizer.apply_chat_template(&messages, GenerationPrompt::Append)?;
        let input = encoder.expand_placeholders(&self.tokenizer.encode_chat(&chat)?, &images)?;
        Ok(Prompt { chat, input })
    }

    /// Streams a completion to standard output and returns it. Ctrl-C ends it early.
    pub(crate) fn answer(&mut self, prompt: Prompt) -> anyhow::Result<String> {
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
        let request = GenerationRequest {
            prompt: prompt.input,
            samples: 1,
            stream: stream(&[self.seed, self.completions]),
            first_sample: 0,
        };
        self.completions += 1;
        let id = self.engine.add(&request, &self.sampling)?;
        let mut text = TextStream::new(self.tokenizer.clone(), SpecialTokens::Skip);
        let mut completion = String::new();
        while self.engine.has_work() {
            if self.stop.load(Ordering::Relaxed) {
                self.engine.cancel(id);
                break;
            }
            for output in self.engine.step()? {
                if let EngineOutput::NonFinite { .. } = output {
                    return Err(embodied_r_policy::Error::NonFiniteLogits.into());
                }
                // A stop token is not part of the completion, even if it has a text.
                if let EngineOutput::Token { token, .. } = output
                    && !self.sampling.stop_ids.contains(&token.id)
                {
                    let piece = text.push(token.id)?;
                    print(&piece, false)?;
                    completion.push_str(&piece);
                }
            }
        }
        let rest = text.finish()?;
        print(&rest, true)?;
        completion.push_str(&rest);
        Ok(completion)
    }
}

/// A turn as the chat templates of vision-language models expect it.
fn multimodal(turn: &ChatTurn) -> MultimodalMessage {
    let images = turn.images.iter().map(|_| MultimodalPart::Image);
    let text = MultimodalPart::Text { text: turn.message.content.clone() };
    MultimodalMessage { role: turn.message.role.clone(), content: images.chain([text]).collect() }
}

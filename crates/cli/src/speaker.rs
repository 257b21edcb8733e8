//! A model that answers as one reads: its side of a conversation.

mod thinking;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use embodied_r_grpo::random::stream;
use embodied_r_policy::tokenizer::{ChatMessage, Generation, Special, Tokenizer};
use embodied_r_policy::{
    Engine, EngineOptions, InferenceModel, Output, Prompt as ModelPrompt, Request, Sampling,
    TextStream, hub,
};
use embodied_r_vision::{Message, Part, Seen, VisionLanguageModel, VisionOptions, can_see};
use signal_hook::consts::SIGINT;

use crate::args::model::{DecodingArgs, StoredModel};
use thinking::Dimmer;

/// What is shown of an answer while it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Its words.
    Words,
    Nothing,
}

/// Whether a model is given pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// If it can see; larger ones are reduced to so many pixels.
    Open { max_pixels: Option<usize> },
    /// A vision tower is left out.
    Blind,
}

/// A turn of a conversation, with the pictures that stand before its words.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) message: ChatMessage,
    pub(crate) pictures: Vec<Seen>,
}

impl From<ChatMessage> for Turn {
    fn from(message: ChatMessage) -> Self {
        Self { message, pictures: Vec::new() }
    }
}

/// A model that answers as one reads.
pub(crate) struct Speaker {
    engine: Engine,
    /// The model, if it can see.
    seeing: Option<VisionLanguageModel>,
    show: Show,
    tokenizer: Arc<Tokenizer>,
    sampling: Arc<Sampling>,
    max_model_len: usize,
    seed: u64,
    answers: u64,
    /// Set by Ctrl-C.
    stop: Arc<AtomicBool>,
    dims: bool,
}

/// A prompt: its text, and what of it the model is given.
pub(crate) struct Prompt {
    text: String,
    given: ModelPrompt,
}

impl AsRef<[u32]> for Prompt {
    fn as_ref(&self) -> &[u32] {
        self.given.ids()
    }
}

impl Speaker {
    /// Loads the model; from then on Ctrl-C stops answers and no longer the program.
    pub(crate) fn load(
        stored: &StoredModel,
        decoding: &DecodingArgs,
        show: Show,
        sight: Sight,
    ) -> anyhow::Result<Self> {
        let DecodingArgs { temperature, top_p, top_k, max_new_tokens, seed, .. } = *decoding;
        let dir = hub::resolve(&stored.model, stored.revision.as_deref())?;
        let tokenizer = Arc::new(Tokenizer::from_dir(&dir)?);
        let stop_ids = tokenizer.stop_ids().to_vec();
        let sampling =
            Sampling { temperature, top_k, top_p, max_new_tokens, stop_ids, ..Sampling::default() };
        sampling.check()?;
        let placement = stored.weights.placement()?;
        let seeing = match sight {
            Sight::Open { max_pixels } if can_see(&dir) => {
                let placement = placement.clone();
                Some(VisionLanguageModel::load(&dir, &VisionOptions { placement, max_pixels })?)
            }
            _ => None,
        };
        let model = match &seeing {
            Some(model) => model.decoder().clone(),
            None => Arc::new(InferenceModel::load(&dir, placement)?),
        };
        let max_model_len = model.config().max_position_embeddings;
        let engine = Engine::new(model, EngineOptions { max_num_seqs: 1, ..Default::default() })?;
        let stop = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, stop.clone()).context("cannot listen for Ctrl-C")?;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dims = io::stdout().is_terminal() && !plain && show == Show::Words;
        let sampling = Arc::new(sampling);
        Ok(Self {
            engine,
            seeing,
            show,
            tokenizer,
            sampling,
            max_model_len,
            seed,
            answers: 0,
            stop,
            dims,
        })
    }

    /// The model, if it can see.
    pub(crate) fn seeing(&self) -> Option<&VisionLanguageModel> {
        self.seeing.as_ref()
    }

    /// Most tokens of a prompt: an answer has its tokens, or a quarter of what the model takes.
    pub(crate) fn longest_prompt(&self) -> usize {
        let answer = self.sampling.max_new_tokens.min(self.max_model_len / 4).max(1);
        self.max_model_len.saturating_sub(answer)
    }

    /// The prompt of a conversation.
    pub(crate) fn prompt(&self, turns: &[Turn]) -> anyhow::Result<Prompt> {
        let pictures: Vec<Seen> = turns.iter().flat_map(|turn| &turn.pictures).cloned().collect();
        let eyes = self.seeing().filter(|_| !pictures.is_empty()).map(VisionLanguageModel::eyes);
        let Some(eyes) = eyes else {
            let messages: Vec<&ChatMessage> = turns.iter().map(|turn| &turn.message).collect();
            let text = self.tokenizer.render(&messages, Generation::Prompt)?;
            let given = self.tokenizer.encode(&text)?.into();
            return Ok(Prompt { text, given });
        };
        let messages: Vec<Message> = turns.iter().map(seen).collect();
        let text = self.tokenizer.render(&messages, Generation::Prompt)?;
        let given = eyes.prompt(&self.tokenizer, &messages, &pictures)?;
        Ok(Prompt { text, given })
    }

    /// Answers on standard output while the tokens are drawn, and gives the answer, which Ctrl-C may
    /// have cut short.
    pub(crate) fn answer(&mut self, prompt: Prompt) -> anyhow::Result<String> {
        let (dimmer, first) = Dimmer::after(&prompt.text);
        let mut dimmer = self.dims.then_some(dimmer);
        let shows = self.show == Show::Words;
        let mut show = |text: &str, last: bool| {
            if !shows {
                return Ok(());
            }
            let mut shown = match &mut dimmer {
                Some(dimmer) => dimmer.push(text),
                None => text.to_owned(),
            };
            if last {
                shown.extend(dimmer.as_mut().map(Dimmer::finish));
                shown.push('\n');
            }
            let mut out = io::stdout().lock();
            out.write_all(shown.as_bytes()).and_then(|()| out.flush())
        };
        self.stop.store(false, Ordering::Relaxed);
        if self.dims {
            io::stdout().write_all(first.as_bytes())?;
        }
        let request = Request {
            prompt: prompt.given,
            samples: 1,
            stream: stream(&[self.seed, self.answers]),
        };
        self.answers += 1;
        let id = self.engine.add(&request, &self.sampling)?;
        let mut text = TextStream::new(self.tokenizer.clone(), Special::Skip);
        let mut said = String::new();
        while self.engine.has_work() {
            if self.stop.load(Ordering::Relaxed) {
                self.engine.cancel(id);
                break;
            }
            for output in self.engine.step()? {
                // A stop token is no part of the answer, even where it has a text.
                if let Output::Token { token, .. } = output
                    && !self.sampling.stop_ids.contains(&token.id)
                {
                    let piece = text.push(token.id)?;
                    show(&piece, false)?;
                    said.push_str(&piece);
                }
            }
        }
        let rest = text.finish()?;
        show(&rest, true)?;
        said.push_str(&rest);
        Ok(said)
    }
}

/// A turn in the form that the templates of vision-language models take.
fn seen(turn: &Turn) -> Message {
    let pictures = turn.pictures.iter().map(|_| Part::Image);
    let words = Part::Text { text: turn.message.content.clone() };
    Message { role: turn.message.role.clone(), content: pictures.chain([words]).collect() }
}

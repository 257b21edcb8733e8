//! The model's side of a conversation.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use embodied_r_grpo::random::stream;
use embodied_r_policy::tokenizer::{ChatMessage, Generation, Special, Tokenizer};
use embodied_r_policy::{
    Engine, EngineOptions, InferenceModel, Output, Request, Sampling, TextStream, hub,
};
use signal_hook::consts::SIGINT;

use super::thinking::Dimmer;
use crate::args::chat::ChatArgs;
use crate::args::model::DecodingArgs;

/// A model that answers as one types.
pub(super) struct Speaker {
    engine: Engine,
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
pub(super) struct Prompt {
    text: String,
    ids: Vec<u32>,
}

impl AsRef<[u32]> for Prompt {
    fn as_ref(&self) -> &[u32] {
        &self.ids
    }
}

impl Speaker {
    /// Loads the model; from then on Ctrl-C stops answers and no longer the program.
    pub(super) fn load(args: &ChatArgs) -> anyhow::Result<Self> {
        let DecodingArgs { temperature, top_p, top_k, max_new_tokens, seed, .. } = args.decoding;
        let dir = hub::resolve(&args.stored.model, args.stored.revision.as_deref())?;
        let tokenizer = Arc::new(Tokenizer::from_dir(&dir)?);
        let stop_ids = tokenizer.stop_ids().to_vec();
        let sampling =
            Sampling { temperature, top_k, top_p, max_new_tokens, stop_ids, ..Sampling::default() };
        sampling.check()?;
        let model = Arc::new(InferenceModel::load(&dir, args.stored.weights.format())?);
        let max_model_len = model.config().max_position_embeddings;
        let engine = Engine::new(model, EngineOptions { max_num_seqs: 1, ..Default::default() })?;
        let stop = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGINT, stop.clone()).context("cannot listen for Ctrl-C")?;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dims = io::stdout().is_terminal() && !plain;
        let sampling = Arc::new(sampling);
        Ok(Self { engine, tokenizer, sampling, max_model_len, seed, answers: 0, stop, dims })
    }

    /// Most tokens of a prompt: an answer has its tokens, or a quarter of what the model takes.
    pub(super) fn longest_prompt(&self) -> usize {
        let answer = self.sampling.max_new_tokens.min(self.max_model_len / 4).max(1);
        self.max_model_len.saturating_sub(answer)
    }

    /// The prompt of a conversation.
    pub(super) fn prompt(&self, messages: &[ChatMessage]) -> anyhow::Result<Prompt> {
        let text = self.tokenizer.render(messages, Generation::Prompt)?;
        let ids = self.tokenizer.encode(&text)?;
        Ok(Prompt { text, ids })
    }

    /// Answers on standard output while the tokens are drawn, and gives the answer, which Ctrl-C may
    /// have cut short.
    pub(super) fn answer(&mut self, prompt: Prompt) -> anyhow::Result<String> {
        let (dimmer, first) = Dimmer::after(&prompt.text);
        let mut dimmer = self.dims.then_some(dimmer);
        let mut show = |text: &str, last: bool| {
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
            prompt: prompt.ids.into(),
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

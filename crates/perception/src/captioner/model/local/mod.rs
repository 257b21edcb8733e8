//! A vision-language model in this process, asked as one behind an API is.

mod engine;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use embodied_r_openai::{ChatReply, ChatRequest, Content, Role, Usage};
use embodied_r_policy::tokenizer::{Special, Tokenizer};
use embodied_r_policy::{
    Engine, EngineOptions, EngineStats, Finish, Prompt, Sampling, SamplingDefaults, TextStream,
    WeightFormat, fingerprint,
};
use embodied_r_vision::{Gallery, Message, Part, VisionLanguageModel, VisionOptions, picture};
use futures_util::future::{BoxFuture, FutureExt as _};
use image::RgbImage;
use serde_json::{Map, Value, json};

use super::ChatModel;
use crate::error::{Error, Result};
use engine::EngineThread;

/// How a model in this process is loaded and run.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// What its matrices are held as, and how large pictures may be.
    pub vision: VisionOptions,
    /// Memory for keys and values, in bytes.
    pub kv_cache_bytes: usize,
    /// Memory for what pictures are to the decoder, in bytes.
    pub gallery_bytes: usize,
    /// Sequences that are decoded together, and tokens that a step computes, at most.
    pub engine: EngineOptions,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            vision: WeightFormat::F32.into(),
            kv_cache_bytes: 4 << 30,
            gallery_bytes: 1 << 30,
            engine: EngineOptions::default(),
        }
    }
}

/// A vision-language model with its engine. Each picture is looked at once, and what prompts begin with in
/// common is computed once.
pub struct LocalModel {
    gallery: Arc<Gallery>,
    tokenizer: Arc<Tokenizer>,
    engine: EngineThread,
    defaults: SamplingDefaults,
    /// By the pictures that a prompt begins with: held while the first of such prompts is computed.
    openings: Mutex<HashMap<u128, Arc<tokio::sync::Mutex<bool>>>>,
    settings: Map<String, Value>,
}

/// Most tokens of a reply, where a request says nothing.
const MAX_TOKENS: usize = 1024;

/// Openings that are kept in mind before they are forgotten all at once.
const MOST_OPENINGS: usize = 1 << 14;

impl LocalModel {
    /// Loads the model in `dir`, a folder in Hugging Face's layout or a GGUF file with its tower's beside it.
    ///
    /// # Errors
    /// It is no vision-language model, or cannot be loaded or run with these options.
    pub fn load(dir: &Path, options: &LocalOptions) -> Result<Self> {
        Self::of(dir, &VisionLanguageModel::load(dir, options.vision)?, options)
    }

    /// The model that was loaded from `dir` as [`LocalOptions::vision`] says, with which it shares the weights.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn of(dir: &Path, model: &VisionLanguageModel, options: &LocalOptions) -> Result<Self> {
        let decoder = model.decoder().clone();
        let tokens = options.kv_cache_bytes / decoder.kv_bytes_per_token().max(1);
        let kv_cache_tokens = Some(tokens);
        let engine =
            Engine::new(decoder, EngineOptions { kv_cache_tokens, ..options.engine.clone() })?;
        Ok(Self {
            gallery: Arc::new(Gallery::new(model.eyes().clone(), options.gallery_bytes)),
            tokenizer: Arc::new(Tokenizer::from_dir(dir)?),
            engine: EngineThread::start(engine)?,
            defaults: SamplingDefaults::from_dir(dir)?,
            openings: Mutex::default(),
            settings: Map::from_iter([
                ("backend".to_owned(), json!("local")),
                ("fingerprint".to_owned(), json!(fingerprint(dir)?)),
                ("weights".to_owned(), json!(options.vision.format.name())),
                ("max_pixels".to_owned(), json!(options.vision.max_pixels)),
            ]),
        })
    }

    /// What looks at the pictures.
    #[must_use]
    pub fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// How the engine was doing after its last step.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    /// The model's own sampling, with what a request gives in its place.
    fn sampling(&self, request: &ChatRequest) -> Sampling {
        let temperature = request.temperature.unwrap_or(self.defaults.temperature);
        let defaults = SamplingDefaults { temperature, ..self.defaults };
        let max_tokens = request.max_tokens.map_or(MAX_TOKENS, |most| most as usize);
        defaults.sampling(max_tokens, self.tokenizer.stop_ids().to_vec())
    }

    async fn reply(&self, request: &ChatRequest, jpegs: &[Vec<u8>]) -> Result<ChatReply> {
        let began = Instant::now();
        let prompt = self.prompt(messages(request), jpegs.to_vec()).await?;
        let prompt_tokens = prompt.len() as u64;
        let sampling = Arc::new(self.sampling(request));
        let completion = {
            let turn = self.opening(opening(jpegs));
            let mut is_computed = turn.lock().await;
            let mut running = self.engine.submit(prompt, sampling, stream(request));
            if !*is_computed {
                running.begun().await;
                *is_computed = true;
            }
            drop(is_computed);
            running.done().await?
        };
        let finish_reason = match completion.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        };
        let completion_tokens = completion.ids.len() as u64;
        Ok(ChatReply {
            text: self.text(&completion.ids)?,
            finish_reason: Some(finish_reason.to_owned()),
            refusal: None,
            usage: Some(Usage { prompt_tokens, completion_tokens }),
            attempts: 1,
            elapsed: began.elapsed(),
        })
    }

    fn text(&self, ids: &[u32]) -> Result<String> {
        let mut stream = TextStream::new(self.tokenizer.clone(), Special::Skip);
        let mut text = String::new();
        for id in ids {
            text.push_str(&stream.push(*id)?);
        }
        text.push_str(&stream.finish()?);
        Ok(text)
    }

    /// The prompt of a conversation, made off the asynchronous threads: the tower takes its time.
    async fn prompt(&self, messages: Vec<Message>, pictures: Vec<Vec<u8>>) -> Result<Prompt> {
        let (gallery, tokenizer) = (self.gallery.clone(), self.tokenizer.clone());
        let work = move || -> embodied_r_vision::Result<Prompt> {
            let pictures = pictures.iter().map(|bytes| picture::from_bytes(bytes));
            let pictures: Vec<RgbImage> = pictures.collect::<Result<_, _>>()?;
            let seen = gallery.images(&pictures.iter().collect::<Vec<_>>())?;
            gallery.eyes().prompt(&tokenizer, &messages, &seen)
        };
        Ok(tokio::task::spawn_blocking(work).await.map_err(Error::Stopped)??)
    }

    /// Whose turn it is among prompts that begin with the same pictures; `true` once their opening is computed.
    fn opening(&self, opening: u128) -> Arc<tokio::sync::Mutex<bool>> {
        let mut openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        if openings.len() >= MOST_OPENINGS {
            openings.clear();
        }
        openings.entry(opening).or_default().clone()
    }
}

impl ChatModel for LocalModel {
    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn status(&self) -> Option<String> {
        let EngineStats { running, waiting, .. } = self.stats();
        let (looked, reused) = (self.gallery.looked(), self.gallery.reused());
        Some(format!(
            "{looked} pictures seen, {reused} again; {running} running, {waiting} waiting"
        ))
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        jpegs: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Result<ChatReply>> {
        self.reply(request, jpegs).boxed()
    }
}

/// A request's messages as the model's template takes them.
fn messages(request: &ChatRequest) -> Vec<Message> {
    let part = |content: &Content| match content {
        Content::Text(text) => Part::Text { text: text.clone() },
        Content::Image(_) => Part::Image,
    };
    let message = |message: &embodied_r_openai::Message| Message {
        role: match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
        .to_owned(),
        content: message.content.iter().map(part).collect(),
    };
    request.messages.iter().map(message).collect()
}

/// What the random numbers of a reply follow from: the request, whenever it is asked.
fn stream(request: &ChatRequest) -> u64 {
    let words = serde_json::to_vec(request).unwrap_or_default();
    let hash = blake3::hash(&words);
    hash.as_bytes().iter().take(8).fold(0, |stream, byte| stream << 8 | u64::from(*byte))
}

/// A name for the pictures that a prompt begins with.
fn opening(pictures: &[Vec<u8>]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for picture in pictures {
        hasher.update(blake3::hash(picture).as_bytes());
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

//! A vision-language model in this process, asked as one behind an API is.

mod crew;
mod engine;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use embodied_r_openai::{ChatReply, ChatRequest, Content, Role, Usage};
use embodied_r_policy::tokenizer::{Generation, Special, Tokenizer};
use embodied_r_policy::{
    Engine, EngineOptions, EngineStats, Finish, Prompt, Sampling, SamplingDefaults, TensorParallel,
    TextStream, WeightFormat, fingerprint,
};
use embodied_r_vision::{Gallery, Message, Part, VisionLanguageModel, VisionOptions, picture};
use futures_util::future::{BoxFuture, FutureExt as _};
use image::RgbImage;
use serde_json::{Map, Value, json};

use super::ChatModel;
use crate::error::{Error, Result};
use crew::{Asked, Member};
use engine::{EngineThread, OwnRequest, Running};

/// How a model in this process is loaded and run.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// What its matrices are held as, and how large pictures may be.
    pub vision: VisionOptions,
    /// Memory for keys and values, in bytes, on each rank.
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

impl LocalOptions {
    /// An engine of `model`, or of its part on this rank.
    fn engine(&self, model: &VisionLanguageModel) -> Result<Engine> {
        let decoder = model.decoder().clone();
        let tokens = self.kv_cache_bytes / decoder.kv_bytes_per_token().max(1);
        let options = EngineOptions { kv_cache_tokens: Some(tokens), ..self.engine.clone() };
        Ok(Engine::new(decoder, options)?)
    }
}

/// A vision-language model with its engine. Each picture is looked at once, and what prompts begin with in
/// common is computed once.
pub struct LocalModel {
    gallery: Arc<Gallery>,
    tokenizer: Arc<Tokenizer>,
    engine: Worked,
    defaults: SamplingDefaults,
    /// By the pictures that a prompt begins with: held while the first of such prompts is computed.
    openings: Mutex<HashMap<u128, Arc<tokio::sync::Mutex<bool>>>>,
    settings: Map<String, Value>,
}

/// Where the model is.
enum Worked {
    Here(EngineThread<OwnRequest>),
    /// On this rank and others.
    OverRanks(EngineThread<Asked>),
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
        Self::of(dir, &VisionLanguageModel::load(dir, &options.vision)?, options)
    }

    /// The model in `dir`, split over `ranks`. The first rank gets it; the others do what it is asked, and get nothing
    /// once it is dropped there.
    ///
    /// # Errors
    /// As [`Self::load`], if the model cannot be split so, and when a rank is lost.
    pub fn over_ranks(
        dir: &Path,
        options: &LocalOptions,
        ranks: &TensorParallel,
    ) -> Result<Option<Self>> {
        let model = VisionLanguageModel::load_part(dir, &options.vision, ranks)?;
        if ranks.is_first() {
            return Self::of(dir, &model, options).map(Some);
        }
        Member::new(dir, &model, options)?.follow()?;
        Ok(None)
    }

    /// The model that was loaded from `dir` as [`LocalOptions::vision`] says, with which it shares the weights.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn of(dir: &Path, model: &VisionLanguageModel, options: &LocalOptions) -> Result<Self> {
        let (gallery, engine) = if model.decoder().ranks().is_alone() {
            let gallery = Gallery::new(model.eyes().clone(), options.gallery_bytes);
            (Arc::new(gallery), Worked::Here(EngineThread::start(options.engine(model)?)?))
        } else {
            let member = Member::new(dir, model, options)?;
            (Arc::clone(member.gallery()), Worked::OverRanks(EngineThread::start(member)?))
        };
        Ok(Self {
            gallery,
            tokenizer: Arc::new(Tokenizer::from_dir(dir)?),
            engine,
            defaults: SamplingDefaults::from_dir(dir)?,
            openings: Mutex::default(),
            settings: Map::from_iter([
                ("backend".to_owned(), json!("local")),
                ("fingerprint".to_owned(), json!(fingerprint(dir)?)),
                ("weights".to_owned(), json!(options.vision.placement.format.name())),
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
        match &self.engine {
            Worked::Here(engine) => engine.stats(),
            Worked::OverRanks(engine) => engine.stats(),
        }
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
        let (prompt_tokens, asked) = self.asked(request, jpegs).await?;
        let completion = {
            let turn = self.opening(opening(jpegs));
            let mut is_computed = turn.lock().await;
            let mut running = asked.submit();
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

    /// The tokens of a request, and the request.
    async fn asked(
        &self,
        request: &ChatRequest,
        jpegs: &[Vec<u8>],
    ) -> Result<(u64, Submitted<'_>)> {
        let (stream, sampling) = (stream(request), self.sampling(request));
        match &self.engine {
            Worked::Here(engine) => {
                let prompt = self.prompt(messages(request), jpegs.to_vec()).await?;
                let tokens = prompt.len() as u64;
                let asked = OwnRequest { prompt, sampling: Arc::new(sampling), stream };
                Ok((tokens, Submitted::Here(engine, asked)))
            }
            Worked::OverRanks(engine) => {
                let text = self.tokenizer.render(&messages(request), Generation::Prompt)?;
                let (ids, eyes) = (self.tokenizer.encode(&text)?, self.gallery.eyes());
                let mut tokens = ids.len() - jpegs.len().min(ids.len());
                for jpeg in jpegs {
                    tokens += eyes.image_tokens(picture::size(jpeg)?)?;
                }
                let Sampling { temperature, max_new_tokens: max_tokens, .. } = sampling;
                let jpegs = jpegs.to_vec();
                let asked = Asked { ids, jpegs, temperature, max_tokens, stream };
                Ok((tokens as u64, Submitted::OverRanks(engine, asked)))
            }
        }
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

/// A request and who is to have it.
enum Submitted<'a> {
    Here(&'a EngineThread<OwnRequest>, OwnRequest),
    OverRanks(&'a EngineThread<Asked>, Asked),
}

impl Submitted<'_> {
    fn submit(self) -> Running {
        match self {
            Self::Here(engine, asked) => engine.submit(asked),
            Self::OverRanks(engine, asked) => engine.submit(asked),
        }
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

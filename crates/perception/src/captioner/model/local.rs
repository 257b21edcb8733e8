//! A vision-language model in this process, with the same interface as one behind an API.

mod engine;
mod options;
mod tensor_parallel;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use embodied_r_openai::{
    ChatCompletion, ChatCompletionMessage, ChatCompletionRequest, ContentPart, Role, Usage,
};
use embodied_r_policy::tokenizer::{GenerationPrompt, SpecialTokens, Tokenizer};
use embodied_r_policy::{
    EngineStats, FingerprintExtent, FinishReason, Prompt, SamplingDefaults, SamplingParams,
    TensorParallel, TextStream, fingerprint,
};
use embodied_r_vision::{
    EmbeddingCache, MultimodalMessage, MultimodalPart, VisionLanguageModel, image_file,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use image::RgbImage;
use serde_json::{Map, Value, json};

use super::ChatModel;
use crate::error::{Error, Result};
use engine::{EngineThread, PendingCompletion, PromptRequest};
pub use options::LocalOptions;
use tensor_parallel::{TensorParallelRequest, TensorParallelWorker};

/// A vision-language model with its engine. Image embeddings and shared prompt prefixes are computed once.
pub struct LocalModel {
    image_cache: Arc<EmbeddingCache>,
    tokenizer: Arc<Tokenizer>,
    engine: EngineHandle,
    defaults: SamplingDefaults,
    /// Locks by the images at the start of a prompt, held during the prefill of the first such prompt.
    prefixes: Mutex<HashMap<u128, Arc<tokio::sync::Mutex<bool>>>>,
    settings: Map<String, Value>,
}

/// The engine of the model.
enum EngineHandle {
    SingleRank(EngineThread<PromptRequest>),
    /// On this rank and others.
    TensorParallel(EngineThread<TensorParallelRequest>),
}

/// Maximum tokens of a completion if a request sets none.
const MAX_TOKENS: usize = 1024;

/// Prefixes that are tracked before all are dropped.
const MAX_PREFIXES: usize = 1 << 14;

impl LocalModel {
    /// Loads the model in `dir`, a Hugging Face folder or a GGUF file with its vision encoder's GGUF next to it.
    ///
    /// # Errors
    /// It is not a vision-language model, or cannot be loaded or run with these options.
    pub fn load(dir: &Path, options: &LocalOptions) -> Result<Self> {
        Self::from_model(dir, &VisionLanguageModel::load(dir, &options.vision)?, options)
    }

    /// Loads the model in `dir` with tensor parallelism over `ranks`. Rank 0 gets the model; the other ranks serve its
    /// requests until it is dropped, then get `None`.
    ///
    /// # Errors
    /// As [`Self::load`], if the model cannot be partitioned so, or if a rank fails.
    pub fn load_tensor_parallel(
        dir: &Path,
        options: &LocalOptions,
        ranks: &TensorParallel,
    ) -> Result<Option<Self>> {
        let model = VisionLanguageModel::load_part(dir, &options.vision, ranks)?;
        if ranks.is_first() {
            return Self::from_model(dir, &model, options).map(Some);
        }
        TensorParallelWorker::new(dir, &model, options)?.run()?;
        Ok(None)
    }

    /// Shares the weights of `model`, which was loaded from `dir` with [`LocalOptions::vision`].
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_model(
        dir: &Path,
        model: &VisionLanguageModel,
        options: &LocalOptions,
    ) -> Result<Self> {
        let (image_cache, engine) = if model.decoder().ranks().is_single_rank() {
            let image_cache =
                EmbeddingCache::new(model.vision_encoder().clone(), options.image_cache_bytes);
            (
                Arc::new(image_cache),
                EngineHandle::SingleRank(EngineThread::start(options.engine(model)?)?),
            )
        } else {
            let worker = TensorParallelWorker::new(dir, model, options)?;
            (
                Arc::clone(worker.image_cache()),
                EngineHandle::TensorParallel(EngineThread::start(worker)?),
            )
        };
        Ok(Self {
            image_cache,
            tokenizer: Arc::new(Tokenizer::from_dir(dir)?),
            engine,
            defaults: SamplingDefaults::from_dir(dir)?,
            prefixes: Mutex::default(),
            settings: Map::from_iter([
                ("backend".to_owned(), json!("local")),
                ("fingerprint".to_owned(), json!(fingerprint(dir, FingerprintExtent::Sampled)?)),
                ("weights".to_owned(), json!(options.vision.placement.format.name())),
                ("max_pixels".to_owned(), json!(options.vision.max_pixels)),
            ]),
        })
    }

    /// The image embedding cache.
    #[must_use]
    pub fn image_cache(&self) -> &EmbeddingCache {
        &self.image_cache
    }

    /// The engine's statistics after its last step.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        match &self.engine {
            EngineHandle::SingleRank(engine) => engine.stats(),
            EngineHandle::TensorParallel(engine) => engine.stats(),
        }
    }

    /// The request's sampling options, with the model's defaults.
    fn sampling(&self, request: &ChatCompletionRequest) -> SamplingParams {
        let temperature = request.temperature.unwrap_or(self.defaults.temperature);
        let defaults = SamplingDefaults { temperature, ..self.defaults };
        let max_tokens = request.max_tokens.map_or(MAX_TOKENS, |most| most as usize);
        defaults.sampling(max_tokens, self.tokenizer.stop_ids().to_vec())
    }

    async fn complete(
        &self,
        request: &ChatCompletionRequest,
        jpegs: &[Vec<u8>],
    ) -> Result<ChatCompletion> {
        let start = Instant::now();
        let (prompt_tokens, prepared) = self.prepare(request, jpegs).await?;
        let completion = {
            let prefix = self.prefix_lock(prefix_hash(jpegs));
            let mut is_prefilled = prefix.lock().await;
            let mut pending = prepared.submit();
            if !*is_prefilled {
                pending.prefilled().await;
                *is_prefilled = true;
            }
            drop(is_prefilled);
            pending.done().await?
        };
        let finish_reason = match completion.finish {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        };
        let completion_tokens = completion.ids.len() as u64;
        Ok(ChatCompletion {
            text: self.text(&completion.ids)?,
            finish_reason: Some(finish_reason.to_owned()),
            refusal: None,
            usage: Some(Usage { prompt_tokens, completion_tokens }),
            attempts: 1,
            elapsed: start.elapsed(),
        })
    }

    /// The number of prompt tokens, and the request for the engine.
    async fn prepare(
        &self,
        request: &ChatCompletionRequest,
        jpegs: &[Vec<u8>],
    ) -> Result<(u64, PreparedRequest<'_>)> {
        let (stream, sampling) = (stream(request), self.sampling(request));
        match &self.engine {
            EngineHandle::SingleRank(engine) => {
                let prompt = self.prompt(messages(request), jpegs.to_vec()).await?;
                let tokens = prompt.len() as u64;
                let request = PromptRequest { prompt, sampling: Arc::new(sampling), stream };
                Ok((tokens, PreparedRequest::SingleRank(engine, request)))
            }
            EngineHandle::TensorParallel(engine) => {
                let chat = self
                    .tokenizer
                    .apply_chat_template(&messages(request), GenerationPrompt::Append)?;
                let (ids, vision_encoder) =
                    (self.tokenizer.encode_chat(&chat)?, self.image_cache.vision_encoder());
                let mut tokens = ids.len() - jpegs.len().min(ids.len());
                for jpeg in jpegs {
                    tokens += vision_encoder.image_tokens(image_file::size(jpeg)?)?;
                }
                let SamplingParams { temperature, max_new_tokens: max_tokens, .. } = sampling;
                let jpegs = jpegs.to_vec();
                let request = TensorParallelRequest { ids, jpegs, temperature, max_tokens, stream };
                Ok((tokens as u64, PreparedRequest::TensorParallel(engine, request)))
            }
        }
    }

    fn text(&self, ids: &[u32]) -> Result<String> {
        let mut stream = TextStream::new(self.tokenizer.clone(), SpecialTokens::Skip);
        let mut text = String::new();
        for id in ids {
            text.push_str(&stream.push(*id)?);
        }
        text.push_str(&stream.finish()?);
        Ok(text)
    }

    /// The prompt of a conversation, built in a blocking thread since the vision encoder is slow.
    async fn prompt(
        &self,
        messages: Vec<MultimodalMessage>,
        jpegs: Vec<Vec<u8>>,
    ) -> Result<Prompt> {
        let (image_cache, tokenizer) = (self.image_cache.clone(), self.tokenizer.clone());
        let work = move || -> embodied_r_vision::Result<Prompt> {
            let images = jpegs.iter().map(|bytes| image_file::from_bytes(bytes));
            let images: Vec<RgbImage> = images.collect::<Result<_, _>>()?;
            let embeddings = image_cache.encode_images(&images.iter().collect::<Vec<_>>())?;
            image_cache.vision_encoder().prompt(&tokenizer, &messages, &embeddings)
        };
        Ok(tokio::task::spawn_blocking(work).await.map_err(Error::TaskFailed)??)
    }

    /// The lock of prompts that start with the same images; holds `true` once the prefix is computed.
    fn prefix_lock(&self, prefix: u128) -> Arc<tokio::sync::Mutex<bool>> {
        let mut prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        if prefixes.len() >= MAX_PREFIXES {
            prefixes.clear();
        }
        prefixes.entry(prefix).or_default().clone()
    }
}

impl ChatModel for LocalModel {
    fn settings(&self) -> Map<String, Value> {
        self.settings.clone()
    }

    fn status(&self) -> Option<String> {
        let EngineStats { running, waiting, .. } = self.stats();
        let (encoded, hits) = (self.image_cache.misses(), self.image_cache.hits());
        Some(format!(
            "{encoded} images encoded, {hits} cache hits; {running} running, {waiting} waiting"
        ))
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatCompletionRequest,
        jpegs: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Result<ChatCompletion>> {
        self.complete(request, jpegs).boxed()
    }
}

/// A request with its engine.
enum PreparedRequest<'a> {
    SingleRank(&'a EngineThread<PromptRequest>, PromptRequest),
    TensorParallel(&'a EngineThread<TensorParallelRequest>, TensorParallelRequest),
}

impl PreparedRequest<'_> {
    fn submit(self) -> PendingCompletion {
        match self {
            Self::SingleRank(engine, request) => engine.submit(request),
            Self::TensorParallel(engine, request) => engine.submit(request),
        }
    }
}

/// A request's messages for the model's chat template.
fn messages(request: &ChatCompletionRequest) -> Vec<MultimodalMessage> {
    let part = |content: &ContentPart| match content {
        ContentPart::Text(text) => MultimodalPart::Text { text: text.clone() },
        ContentPart::Image(_) => MultimodalPart::Image,
    };
    let message = |message: &ChatCompletionMessage| MultimodalMessage {
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

/// The random stream of a request, derived from its contents so that completions are reproducible.
fn stream(request: &ChatCompletionRequest) -> u64 {
    let bytes = serde_json::to_vec(request).unwrap_or_default();
    let hash = blake3::hash(&bytes);
    hash.as_bytes().iter().take(8).fold(0, |stream, byte| stream << 8 | u64::from(*byte))
}

/// A hash of the images at the start of a prompt.
fn prefix_hash(jpegs: &[Vec<u8>]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for jpeg in jpegs {
        hasher.update(blake3::hash(jpeg).as_bytes());
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

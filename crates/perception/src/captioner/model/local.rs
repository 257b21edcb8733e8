//! A vision-language model in this process, with the same interface as one behind an API.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use embodied_r_inference::{ImageChat, Model, VisionEngine, VisionEngineOptions};
use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_openai::{
    ChatCompletion, ChatCompletionMessage, ChatCompletionRequest, ContentPart, Role, Usage,
};
use embodied_r_policy::{
    EngineStats, FingerprintExtent, FinishReason, TensorParallel, fingerprint,
};
use embodied_r_vision::{MultimodalMessage, MultimodalPart};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};

use super::ChatModel;
use crate::captioner::{FrameImage, ImageForm};
use crate::error::Result;

/// A vision-language model with its engine. Image embeddings and shared prompt prefixes are computed once.
pub struct LocalModel {
    engine: VisionEngine,
    /// Locks by the images at the start of a prompt, held during the prefill of the first such prompt.
    prefixes: Mutex<HashMap<u128, Arc<tokio::sync::Mutex<bool>>>>,
    settings: Map<String, Value>,
}

/// Maximum tokens of a completion if a request sets none.
const MAX_TOKENS: usize = 1024;

/// Prefixes that are tracked before all are dropped.
const MAX_PREFIXES: usize = 1 << 14;

impl LocalModel {
    /// Loads the model in `dir`, a Hugging Face folder or a GGUF file with its vision encoder's GGUF next to it, with
    /// tensor parallelism over `ranks`. Rank 0 gets the model; the other ranks serve its requests until it is dropped, then
    /// get `None`.
    ///
    /// # Errors
    /// It is not a vision-language model, cannot be loaded, run or partitioned with these options, or a rank fails.
    pub fn load(
        dir: &Path,
        options: &VisionEngineOptions,
        ranks: &TensorParallel,
    ) -> Result<Option<Self>> {
        let engine = VisionEngine::load(dir, options, ranks)?;
        engine.map(|engine| Self::new(dir, engine, options)).transpose()
    }

    /// Shares the weights of `model`, which was loaded from `dir` with [`VisionEngineOptions::vision`].
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_model(dir: &Path, model: Model, options: &VisionEngineOptions) -> Result<Self> {
        Self::new(dir, VisionEngine::new(dir, model, options)?, options)
    }

    fn new(dir: &Path, engine: VisionEngine, options: &VisionEngineOptions) -> Result<Self> {
        let settings = Map::from_iter([
            ("backend".to_owned(), json!("local")),
            ("fingerprint".to_owned(), json!(fingerprint(dir, FingerprintExtent::Sampled)?)),
            ("weights".to_owned(), json!(options.vision.placement.format.name())),
            ("max_pixels".to_owned(), json!(options.vision.pixels.max_pixels)),
        ]);
        Ok(Self { engine, prefixes: Mutex::default(), settings })
    }

    /// The image embedding cache.
    #[must_use]
    pub fn image_cache(&self) -> &EmbeddingCache {
        self.engine.image_cache()
    }

    /// The engine's statistics after its last step.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    async fn complete(
        &self,
        request: &ChatCompletionRequest,
        images: &[FrameImage],
    ) -> Result<ChatCompletion> {
        let start = Instant::now();
        let chat = ImageChat {
            messages: messages(request),
            images: images.iter().map(|image| image.pixels().clone()).collect(),
            temperature: request.temperature,
            max_tokens: request.max_tokens.map_or(MAX_TOKENS, |most| most as usize),
            stream: stream(request),
        };
        let prepared = self.engine.prepare(chat).await?;
        let prompt_tokens = prepared.prompt_tokens as u64;
        let generation = {
            let prefix = self.prefix_lock(prefix_hash(images));
            let mut is_prefilled = prefix.lock().await;
            let mut generation = prepared.submit();
            if !*is_prefilled {
                generation.started().await?;
                *is_prefilled = true;
            }
            generation
        };
        let completion = self.engine.completion(generation).await?;
        let finish_reason = completion.finish.map(|finish| match finish {
            FinishReason::Length => "length".to_owned(),
            FinishReason::Stop => "stop".to_owned(),
        });
        let completion_tokens = completion.tokens as u64;
        Ok(ChatCompletion {
            text: completion.text,
            finish_reason,
            refusal: None,
            usage: Some(Usage { prompt_tokens, completion_tokens }),
            attempts: 1,
            elapsed: start.elapsed(),
        })
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
        let (encoded, hits) = (self.image_cache().misses(), self.image_cache().hits());
        Some(format!(
            "{encoded} images encoded, {hits} cache hits; {running} running, {waiting} waiting"
        ))
    }

    fn image_form(&self) -> ImageForm {
        ImageForm::Pixels
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatCompletionRequest,
        images: &'a [FrameImage],
    ) -> BoxFuture<'a, Result<ChatCompletion>> {
        self.complete(request, images).boxed()
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
fn prefix_hash(images: &[FrameImage]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for image in images {
        let (width, height) = image.pixels().dimensions();
        hasher.update(&[width.to_le_bytes(), height.to_le_bytes()].concat());
        hasher.update(image.pixels().as_raw());
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

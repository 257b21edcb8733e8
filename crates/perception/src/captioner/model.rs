//! Captions from a vision-language model, behind an OpenAI-compatible API or in this process.

mod job;
mod local;
mod prompts;
mod remote;
mod response;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use embodied_r_data::Progress;
use embodied_r_openai::{ChatCompletion, ChatCompletionRequest};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::completion_cache::CompletionCache;
use super::cost::{CostTracker, TokenPrices, UsageTotals};
use super::{Caption, CaptionRequest, Captioner, VideoFrames};
use crate::error::Result;
use job::CaptionJob;
pub use local::{LocalModel, LocalOptions};
pub use remote::RemoteModel;

/// A chat model with image input.
pub trait ChatModel: Send + Sync {
    /// All settings that its completions depend on apart from the request, such as backend and weight format.
    fn settings(&self) -> Map<String, Value>;

    /// The model's metrics for the progress line.
    fn status(&self) -> Option<String> {
        None
    }

    /// The completion of a request that holds image identifiers in place of `jpegs`.
    ///
    /// # Errors
    /// The model cannot be reached or refuses, or the request is invalid.
    fn chat<'a>(
        &'a self,
        request: &'a ChatCompletionRequest,
        jpegs: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Result<ChatCompletion>>;
}

/// Options of a captioning model.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// The name of the model.
    pub model: String,
    /// Maximum concurrent requests.
    pub concurrency: usize,
    /// Sampling temperature; `None` uses the server's default.
    pub temperature: Option<f64>,
    /// Maximum tokens of a completion; `None` uses the server's default.
    pub max_tokens: Option<u32>,
    /// Folder of the completion cache.
    pub cache: PathBuf,
    /// File with the token usage of all runs.
    pub usage: PathBuf,
    /// Prices of tokens.
    pub prices: Option<TokenPrices>,
    /// Limit on the cost of all runs; no request is sent that might exceed it.
    pub max_cost: Option<f64>,
    /// What to do about frames that the model refused in an earlier run.
    pub refusal_policy: RefusalPolicy,
    /// Once true, no more requests are sent; those in flight are awaited and cached.
    pub stop: Arc<AtomicBool>,
}

/// What to do about frames that the model refused in an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefusalPolicy {
    /// Use the cached refusal, at no cost.
    #[default]
    Keep,
    /// Send the request again.
    Retry,
}

/// Prompts a model for each key frame: the first one alone, every other one with its predecessor.
///
/// Completions that are empty, malformed or truncated at [`ModelOptions::max_tokens`] are retried
/// once. The better completion is used, with its [`CaptionFault`](super::CaptionFault) if it has one.
pub struct ModelCaptioner<M> {
    chat: M,
    requests: Semaphore,
    completions: CompletionCache,
    cost: CostTracker,
    cache_hits: AtomicU64,
    options: ModelOptions,
}

impl<M: ChatModel> ModelCaptioner<M> {
    /// A captioner that prompts `chat`; nothing is sent yet. Broken lines of earlier runs are reported to `progress`.
    ///
    /// # Errors
    /// The completion cache or the usage file cannot be read.
    pub fn open(chat: M, options: ModelOptions, progress: &dyn Progress) -> Result<Self> {
        let ModelOptions { prices, max_cost, .. } = options;
        let concurrency = options.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            chat,
            requests: Semaphore::new(concurrency),
            completions: CompletionCache::open(&options.cache, progress)?,
            cost: CostTracker::open(&options.usage, prices, max_cost, progress)?,
            cache_hits: AtomicU64::new(0),
            options,
        })
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.chat
    }

    /// The totals of this run, and of all runs with the same [`ModelOptions::usage`].
    pub fn totals(&self) -> (UsageTotals, UsageTotals) {
        self.cost.totals()
    }

    /// Completions of this run that came from the cache.
    pub fn cache_hits(&self) -> u64 {
        self.cache_hits.load(Ordering::Relaxed)
    }
}

impl<M: ChatModel> Captioner for ModelCaptioner<M> {
    fn settings(&self) -> Map<String, Value> {
        let ModelOptions { model, temperature, max_tokens, .. } = &self.options;
        let mut settings = self.chat.settings();
        settings.insert("model".to_owned(), json!(model));
        settings.insert("temperature".to_owned(), json!(temperature));
        settings.insert("max_tokens".to_owned(), json!(max_tokens));
        settings
    }

    fn status(&self) -> Option<String> {
        let spent = self.totals().1.cost.map(|cost| format!("{cost:.2} spent"));
        let parts: Vec<String> = spent.into_iter().chain(self.chat.status()).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    fn caption<'a>(
        &'a self,
        request: CaptionRequest<'a>,
        video_frames: &'a VideoFrames,
    ) -> BoxFuture<'a, Result<Vec<Caption>>> {
        async move { CaptionJob::new(self, request, video_frames).await?.captions().await }.boxed()
    }
}

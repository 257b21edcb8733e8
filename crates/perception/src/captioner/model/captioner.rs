//! What a captioner with a model consists of.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use embodied_r_data::Progress;
use embodied_r_openai::{ChatCompletion, ChatCompletionRequest};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::captioner::completion_cache::CompletionCache;
use crate::captioner::cost::{CostTracker, TokenPrices, UsageTotals};
use crate::captioner::{FrameImage, ImageForm};
use crate::error::Result;

/// A chat model with image input.
pub trait ChatModel: Send + Sync {
    /// All settings that its completions depend on apart from the request, such as backend and weight format.
    fn settings(&self) -> Map<String, Value>;

    /// The model's metrics for the progress line.
    fn status(&self) -> Option<String> {
        None
    }

    /// How the model gets images.
    fn image_form(&self) -> ImageForm;

    /// The completion of a request that holds image identifiers in place of `images`.
    ///
    /// # Errors
    /// The model cannot be reached or refuses, or the request is invalid.
    fn chat<'a>(
        &'a self,
        request: &'a ChatCompletionRequest,
        images: &'a [FrameImage],
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
/// once. The better completion is used, with its [`CaptionFault`](crate::captioner::CaptionFault) if it has one.
pub struct ModelCaptioner<M> {
    pub(super) chat: M,
    pub(super) requests: Semaphore,
    pub(super) completions: CompletionCache,
    pub(super) cost: CostTracker,
    pub(super) cache_hits: AtomicU64,
    pub(super) options: ModelOptions,
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

//! Captions of a vision-language model, behind an OpenAI-compatible API or in this process.

mod job;
mod local;
mod prompts;
mod remote;
mod reply;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use embodied_r_data::Progress;
use embodied_r_openai::{ChatReply, ChatRequest};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::replies::Replies;
use super::spending::{Prices, Spending, Totals};
use super::{Asked, Caption, Captioner, Footage};
use crate::error::Result;
use job::Job;
pub use local::{LocalModel, LocalOptions};
pub use remote::Remote;

/// A model that goes on with conversations in which there are pictures.
pub trait ChatModel: Send + Sync {
    /// What its replies depend on beside the request, such as its kind and the numbers that it computes with.
    fn settings(&self) -> Map<String, Value>;

    /// A few figures of its own for the line of progress.
    fn status(&self) -> Option<String> {
        None
    }

    /// The reply to a request that holds the names of `jpegs` in their places.
    ///
    /// # Errors
    /// The model cannot be reached or refuses, or cannot take the request.
    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        jpegs: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Result<ChatReply>>;
}

/// How a model is asked.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// The name of the model.
    pub model: String,
    /// Requests on their way at the same time.
    pub concurrency: usize,
    /// Sampling temperature; `None` leaves it to the server.
    pub temperature: Option<f64>,
    /// The most tokens of a reply; `None` leaves it to the server.
    pub max_tokens: Option<u32>,
    /// The folder in which replies are kept.
    pub cache: PathBuf,
    /// The file in which the tokens of all runs are counted.
    pub usage: PathBuf,
    /// What tokens cost.
    pub prices: Option<Prices>,
    /// Nothing is asked that would bring the cost of all runs above this.
    pub max_cost: Option<f64>,
    /// What to do about frames that the model refused in an earlier run.
    pub refused: Refused,
    /// Once this is true no more requests are sent; those on their way are waited for and kept.
    pub stop: Arc<AtomicBool>,
}

/// What to do about frames that the model refused in an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refused {
    /// Take the refusal as its answer, at no cost.
    #[default]
    Keep,
    /// Ask for them again.
    AskAgain,
}

/// Asks a model about each key frame: the first one alone, each other one beside the one before.
///
/// A reply that is empty, or that is not in the form asked for, or that was cut off at
/// [`ModelOptions::max_tokens`] is asked for once more. What comes then is taken as it is, with its
/// [`Fault`](super::Fault) if it has one.
pub struct ModelCaptions<M> {
    chat: M,
    requests: Semaphore,
    replies: Replies,
    spending: Spending,
    from_cache: AtomicU64,
    options: ModelOptions,
}

impl<M: ChatModel> ModelCaptions<M> {
    /// A captioner that asks `chat`; nothing is asked yet. Broken lines of earlier runs are told to `progress`.
    ///
    /// # Errors
    /// The replies or tokens of earlier runs cannot be read.
    pub fn open(chat: M, options: ModelOptions, progress: &dyn Progress) -> Result<Self> {
        let ModelOptions { prices, max_cost, .. } = options;
        let concurrency = options.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            chat,
            requests: Semaphore::new(concurrency),
            replies: Replies::open(&options.cache, progress)?,
            spending: Spending::open(&options.usage, prices, max_cost, progress)?,
            from_cache: AtomicU64::new(0),
            options,
        })
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.chat
    }

    /// What this run has taken, and all runs with the same [`ModelOptions::usage`] together.
    pub fn totals(&self) -> (Totals, Totals) {
        self.spending.totals()
    }

    /// Replies of this run that an earlier one had got.
    pub fn from_cache(&self) -> u64 {
        self.from_cache.load(Ordering::Relaxed)
    }
}

impl<M: ChatModel> Captioner for ModelCaptions<M> {
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
        asked: Asked<'a>,
        footage: &'a Footage,
    ) -> BoxFuture<'a, Result<Vec<Caption>>> {
        async move { Job::new(self, asked, footage).await?.captions().await }.boxed()
    }
}

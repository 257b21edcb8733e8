//! Captions of a vision-language model behind an OpenAI-compatible API.

mod job;
mod prompts;
mod reply;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use embodied_r_data::Progress;
use embodied_r_openai::{Client, ClientOptions};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::replies::Replies;
use super::spending::{Prices, Spending, Totals};
use super::{Asked, Caption, Captioner, Footage};
use crate::error::Result;
use job::Job;

/// How the model is asked.
#[derive(Debug, Clone)]
pub struct OpenAiOptions {
    /// Servers, key, time-outs and retries. How many requests are on their way at a time is its
    /// `concurrency`.
    pub client: ClientOptions,
    /// The name that the servers know the model by.
    pub model: String,
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
/// [`OpenAiOptions::max_tokens`] is asked for once more. What comes then is taken as it is, with its
/// [`Fault`](super::Fault) if it has one.
#[derive(Debug)]
pub struct OpenAi {
    client: Client,
    requests: Semaphore,
    replies: Replies,
    spending: Spending,
    from_cache: AtomicU64,
    options: OpenAiOptions,
}

impl OpenAi {
    /// A captioner; nothing is sent yet. Broken lines of earlier runs are told to `progress`.
    ///
    /// # Errors
    /// A base URL is missing or is not one, or the replies or tokens of earlier runs cannot be read.
    pub fn open(options: OpenAiOptions, progress: &dyn Progress) -> Result<Self> {
        let client = Client::new(&options.client)?;
        let OpenAiOptions { prices, max_cost, .. } = options;
        let concurrency = options.client.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            client,
            requests: Semaphore::new(concurrency),
            replies: Replies::open(&options.cache, progress)?,
            spending: Spending::open(&options.usage, prices, max_cost, progress)?,
            from_cache: AtomicU64::new(0),
            options,
        })
    }

    /// What this run has taken, and all runs with the same [`OpenAiOptions::usage`] together.
    pub fn totals(&self) -> (Totals, Totals) {
        self.spending.totals()
    }

    /// Replies of this run that an earlier one had got.
    pub fn from_cache(&self) -> u64 {
        self.from_cache.load(Ordering::Relaxed)
    }
}

impl Captioner for OpenAi {
    fn settings(&self) -> Map<String, Value> {
        let OpenAiOptions { model, temperature, max_tokens, .. } = &self.options;
        Map::from_iter([
            ("backend".to_owned(), json!("openai")),
            ("model".to_owned(), json!(model)),
            ("temperature".to_owned(), json!(temperature)),
            ("max_tokens".to_owned(), json!(max_tokens)),
        ])
    }

    fn status(&self) -> Option<String> {
        let cost = self.totals().1.cost?;
        Some(format!("{cost:.2} spent"))
    }

    fn caption<'a>(
        &'a self,
        asked: Asked<'a>,
        footage: &'a Footage,
    ) -> BoxFuture<'a, Result<Vec<Caption>>> {
        async move { Job::new(self, asked, footage).await?.captions().await }.boxed()
    }
}

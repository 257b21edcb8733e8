//! External rewards: a command or an HTTP service that scores whole batches.
//!
//! A settings file lists them as tables:
//!
//! ```toml
//! [[reward]]
//! name = "style"
//! command = ["python3", "style.py"]
//! timeout_s = 30
//!
//! [[reward]]
//! name = "helpfulness"
//! url = "http://127.0.0.1:9000/score"
//! batch_size = 64
//! ```
//!
//! Either gets one JSON object per batch, on standard input or as the body of a `POST`:
//! `{"prompts": […], "completions": […], "solutions": […], "completion_ids": [[…], …], "ids": […]}`,
//! each list with one entry per completion. If a question has images, there is `"images": [[path, …], …]`, and if one
//! has further columns, `"columns": [{name: value, …}, …]`. It replies with `{"rewards": [number or null, …]}`, one
//! per completion; null means no score.

mod command;
mod config;
mod error;
mod http;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::reward::{Reward, RewardInput, Score};
use config::TIMEOUT_S;
pub use config::{ExternalRewardConfig, RewardBackend, names};
pub use error::ExternalError;
use http::Http;

/// An external reward.
#[derive(Debug)]
pub struct External {
    name: String,
    transport: Transport,
    batch_size: usize,
}

#[derive(Debug)]
enum Transport {
    Command { argv: Vec<String>, timeout: Duration },
    Http(Http),
}

impl External {
    /// Creates the reward without starting or sending anything.
    ///
    /// # Errors
    /// [`Error::External`] if the program does not exist or the URL is invalid.
    pub fn new(reward: &ExternalRewardConfig) -> Result<Self> {
        let failed = |cause| Error::External { name: reward.name.clone(), cause: Box::new(cause) };
        let timeout = Duration::try_from_secs_f64(reward.timeout_s)
            .unwrap_or(Duration::from_secs_f64(TIMEOUT_S));
        let transport = match &reward.backend {
            RewardBackend::Command(argv) => {
                command::check_program(argv).map_err(failed)?;
                Transport::Command { argv: argv.clone(), timeout }
            }
            RewardBackend::Url(url) => Transport::Http(Http::new(url, timeout).map_err(failed)?),
        };
        let batch_size = reward.batch_size.unwrap_or(usize::MAX).max(1);
        Ok(Self { name: reward.name.clone(), transport, batch_size })
    }

    fn batch(
        &self,
        batch: &[RewardInput<'_>],
        stop: &AtomicBool,
    ) -> Result<Vec<Score>, ExternalError> {
        let request = RewardRequest {
            prompts: batch.iter().map(|input| input.question).collect(),
            completions: batch.iter().map(|input| input.completion).collect(),
            solutions: batch.iter().map(|input| input.solution).collect(),
            completion_ids: batch.iter().map(|s| s.completion_ids.unwrap_or_default()).collect(),
            ids: batch.iter().map(|input| input.id).collect(),
            images: non_empty(batch, |input| input.images, |images| images.is_empty()),
            columns: non_empty(batch, |input| input.columns, Option::is_none),
        };
        let (from, reply) = match &self.transport {
            Transport::Command { argv, timeout } => {
                let from = command::display_command(argv);
                let request = request.json(&from)?;
                let reply = command::run(argv, request, *timeout, stop)?;
                (from, reply)
            }
            Transport::Http(http) => {
                let from = http.name().to_owned();
                let reply = http.post(request.json(&from)?, stop)?;
                (from, reply)
            }
        };
        let rewards = parse_rewards(&from, &reply)?;
        if rewards.len() != batch.len() {
            return Err(ExternalError::Count { from, expected: batch.len(), got: rewards.len() });
        }
        let score = |value: Option<f64>| match value {
            Some(_) => Score { value, reason: None },
            None => Score::absent(format!("`{}` returned no score", self.name)),
        };
        Ok(rewards.into_iter().map(score).collect())
    }
}

impl Reward for External {
    fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// [`Error::External`] if the command or the service fails, after its retries, or does not
    /// reply with one score per completion; [`Error::BlockingCall`] for a service on a thread that
    /// drives an async runtime.
    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        self.score_until(batch, &AtomicBool::new(false))
    }

    fn score_until(&self, batch: &[RewardInput<'_>], stop: &AtomicBool) -> Result<Vec<Score>> {
        if matches!(self.transport, Transport::Http(_))
            && tokio::runtime::Handle::try_current().is_ok()
        {
            return Err(Error::BlockingCall);
        }
        let failed = |cause| match cause {
            ExternalError::Interrupted => Error::Interrupted,
            cause => Error::External { name: self.name.clone(), cause: Box::new(cause) },
        };
        let mut scores = Vec::with_capacity(batch.len());
        for batch in batch.chunks(self.batch_size) {
            scores.extend(self.batch(batch, stop).map_err(failed)?);
        }
        Ok(scores)
    }
}

/// The JSON object sent for a batch.
#[derive(Serialize)]
struct RewardRequest<'a> {
    prompts: Vec<&'a str>,
    completions: Vec<&'a str>,
    solutions: Vec<&'a str>,
    completion_ids: Vec<&'a [u32]>,
    ids: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<&'a [String]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<Option<&'a Map<String, Value>>>,
}

/// A value of each completion; none if all are empty.
fn non_empty<'a, T>(
    batch: &[RewardInput<'a>],
    value: impl Fn(&RewardInput<'a>) -> T,
    is_empty: impl Fn(&T) -> bool,
) -> Vec<T> {
    let values: Vec<T> = batch.iter().map(value).collect();
    if values.iter().all(is_empty) { Vec::new() } else { values }
}

impl RewardRequest<'_> {
    fn json(&self, from: &str) -> Result<Vec<u8>, ExternalError> {
        serde_json::to_vec(self).map_err(|error| ExternalError::Reply {
            from: from.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// Parses the scores of a reply.
fn parse_rewards(from: &str, reply: &[u8]) -> Result<Vec<Option<f64>>, ExternalError> {
    #[derive(Deserialize)]
    struct Reply {
        rewards: Vec<Option<f64>>,
    }
    let error = match serde_json::from_slice::<Reply>(reply) {
        Ok(reply) => return Ok(reply.rewards),
        Err(error) => error,
    };
    let text = String::from_utf8_lossy(reply);
    let text = text.trim();
    let not_finite = ["NaN", "Infinity"].into_iter().find(|word| text.contains(word));
    let reason = match (text.is_empty(), not_finite) {
        (true, _) => "the response is empty".to_owned(),
        (_, Some(word)) => format!("`{word}` is not valid JSON; use null for no score"),
        _ => {
            let start: String = text.chars().take(EXCERPT_CHARS).collect();
            let more = if start.len() < text.len() { "…" } else { "" };
            let start = start.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{error}; it starts with `{start}{more}`")
        }
    };
    Err(ExternalError::Reply { from: from.to_owned(), reason })
}

/// Characters of an invalid reply shown in the error.
const EXCERPT_CHARS: usize = 80;

#[cfg(test)]
mod tests;

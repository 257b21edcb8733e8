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
//! each list with one entry per completion. It replies with `{"rewards": [number or null, …]}`, one
//! per completion; null means no score.

mod command;
mod http;

mod table;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use embodied_r_openai::check_base_url;

use crate::error::{Error, Result};
use crate::registry::{BUILT_IN_REWARDS, RewardNames};
use crate::reward::{Reward, RewardInput, Score};
use crate::stages::ValidationErrors;
use http::Http;

/// Default timeout of a batch in seconds.
const TIMEOUT_S: f64 = 60.0;

/// The command or service that computes the scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RewardBackend {
    /// A program and its arguments, started once per batch.
    Command(Vec<String>),
    /// The URL of a service.
    Url(String),
}

/// The configuration in a `[[reward]]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "table::Table", into = "table::Table")]
pub struct ExternalRewardConfig {
    /// The name used in stage weights and metrics.
    pub name: String,
    /// The command or service that computes the scores.
    pub backend: RewardBackend,
    /// Timeout of a batch in seconds; over HTTP, of each attempt.
    pub timeout_s: f64,
    /// Completions per batch; by default all completions of a step.
    pub batch_size: Option<usize>,
}

impl ExternalRewardConfig {
    /// A reward with one batch per step and a timeout of 60 s.
    pub fn new(name: impl Into<String>, backend: RewardBackend) -> Self {
        Self { name: name.into(), backend, timeout_s: TIMEOUT_S, batch_size: None }
    }

    /// Parses and validates the value of the key `reward` of a settings file, a list of tables.
    ///
    /// # Errors
    /// All errors at once: those of parsing, or else of [`ExternalRewardConfig::validation_errors`].
    pub fn list_from_toml(value: &toml::Value) -> Result<Vec<Self>, ValidationErrors> {
        let mut errors = Vec::new();
        let rewards = table::rewards(value, &mut errors);
        if errors.is_empty() {
            errors = Self::validation_errors(&rewards);
        }
        if errors.is_empty() { Ok(rewards) } else { Err(ValidationErrors(errors)) }
    }

    /// Errors in well-typed tables, each with its path, such as `reward[1].name`. Indices count
    /// from 0.
    pub fn validation_errors(rewards: &[Self]) -> Vec<String> {
        let mut errors = Vec::new();
        for (index, reward) in rewards.iter().enumerate() {
            let earlier = rewards[..index].iter().any(|earlier| earlier.name == reward.name);
            let own = reward.own_errors(earlier);
            errors.extend(own.map(|(field, what)| format!("`reward[{index}].{field}`: {what}")));
        }
        errors
    }

    fn own_errors(&self, taken: bool) -> impl Iterator<Item = (&'static str, String)> {
        let name = &self.name;
        let name_error = if !is_identifier(name) {
            Some(format!(
                "`{name}` must consist of letters, digits and `_`, and not start with a digit"
            ))
        } else if BUILT_IN_REWARDS.contains(&name.as_str()) {
            Some(format!("`{name}` is a built-in reward; choose another name"))
        } else {
            taken.then(|| format!("`{name}` is defined twice; choose another name"))
        };
        let backend_error = match &self.backend {
            RewardBackend::Command(argv) if argv.first().is_none_or(String::is_empty) => {
                Some(("command", "is empty; give a program and its arguments".to_owned()))
            }
            RewardBackend::Url(url)
                if !["http://", "https://"].iter().any(|s| url.starts_with(s)) =>
            {
                Some(("url", "must start with `http://` or `https://`".to_owned()))
            }
            RewardBackend::Url(url) => {
                check_base_url(url).err().map(|error| ("url", error.to_string()))
            }
            _ => None,
        };
        let valid_timeout = Duration::try_from_secs_f64(self.timeout_s).is_ok_and(|t| !t.is_zero());
        let timeout_error = (!valid_timeout)
            .then(|| ("timeout_s", format!("must be more than 0, not {}", self.timeout_s)));
        let batch_size_error = (self.batch_size == Some(0))
            .then(|| ("batch_size", "must be 1 or more, not 0".to_owned()));
        let name_error = name_error.map(|what| ("name", what));
        [name_error, backend_error, timeout_error, batch_size_error].into_iter().flatten()
    }
}

/// The names that stages may weight: built-in rewards and `rewards`.
pub fn names(rewards: &[ExternalRewardConfig]) -> RewardNames {
    RewardNames::new(rewards.iter().map(|reward| reward.name.as_str()))
}

fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// Why an external reward failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExternalError {
    /// The program does not exist.
    #[error("program `{program}` not found; check the reward's `command`")]
    NoProgram {
        /// The first word of the command.
        program: String,
    },
    /// The command cannot be started.
    #[error("cannot start `{command}`: {reason}")]
    Start {
        /// The command.
        command: String,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// Reading the command's output or waiting for its exit failed.
    #[error("cannot read from `{command}`: {reason}")]
    Io {
        /// The command.
        command: String,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// The command exited with a failure.
    #[error("`{command}` failed with {status}{}", stderr_suffix(last_line))]
    Exit {
        /// The command.
        command: String,
        /// Its exit status or the signal that terminated it.
        status: String,
        /// The last line of its standard error; empty for none.
        last_line: String,
    },
    /// The command timed out and was killed.
    #[error(
        "`{command}` timed out after {timeout_s} s and was killed{}; raise `timeout_s` or lower \
         `batch_size`",
        stderr_suffix(last_line)
    )]
    Timeout {
        /// The command.
        command: String,
        /// Its timeout.
        timeout_s: f64,
        /// The last line of its standard error; empty for none.
        last_line: String,
    },
    /// The service is unreachable or rejects the request.
    #[error(transparent)]
    Http(#[from] embodied_r_openai::Error),
    /// The async runtime cannot start.
    #[error("cannot start the async runtime: {0}")]
    Runtime(std::io::Error),
    /// The response has the wrong format.
    #[error(
        "`{from}` returned an invalid response, expected {{\"rewards\": [number or null, …]}}: {reason}"
    )]
    Reply {
        /// The command or the URL.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// A stop was requested while the reply was waited for.
    #[error("interrupted")]
    Interrupted,
    /// The reply has the wrong number of scores.
    #[error("`{from}` returned {got} rewards for {expected} completions")]
    Count {
        /// The command or the URL.
        from: String,
        /// Number of completions.
        expected: usize,
        /// Number of scores.
        got: usize,
    },
}

fn stderr_suffix(last_line: &str) -> String {
    if last_line.is_empty() { String::new() } else { format!(", stderr: {last_line}") }
}

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

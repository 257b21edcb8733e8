//! Rewards from outside: a command, or a service over HTTP, that scores whole batches.
//!
//! A settings file gives them as a list of tables:
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
//! Either gets one JSON object a batch, on standard input or as the body of a `POST`:
//! `{"prompts": […], "completions": […], "solutions": […], "completion_ids": [[…], …], "ids": […]}`,
//! one entry a completion in each list, and replies with `{"rewards": [number or null, …]}`, one a
//! completion; null is no score.

mod command;
mod http;
mod table;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::registry::{BUILT_IN, Names};
use crate::reward::{Reward, Score, Scored};
use crate::stages::Faults;
use http::Http;

/// Seconds that a batch may take where nothing is said.
const TIMEOUT_S: f64 = 60.0;

/// Who scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A program and its arguments, started once a batch.
    Command(Vec<String>),
    /// The address of a service.
    Url(String),
}

/// What a `[[reward]]` table says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "table::Table", into = "table::Table")]
pub struct ExternalReward {
    /// The name by which stages weigh it and logs show it.
    pub name: String,
    /// Who scores.
    pub source: Source,
    /// Longest time for a batch, in seconds; over HTTP, for each attempt at one.
    pub timeout_s: f64,
    /// Completions of a batch; without it all completions of a step at once.
    pub batch_size: Option<usize>,
}

impl ExternalReward {
    /// A reward called `name` by `source`, all completions at once, with 60 s for them.
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        Self { name: name.into(), source, timeout_s: TIMEOUT_S, batch_size: None }
    }

    /// Reads the value of the key `reward` of a settings file, a list of tables.
    ///
    /// # Errors
    /// All faults at once, as [`ExternalReward::faults`] finds them, and those of form.
    pub fn list_from_toml(value: &toml::Value) -> Result<Vec<Self>, Faults> {
        let mut faults = Vec::new();
        let rewards = table::rewards(value, &mut faults);
        if faults.is_empty() {
            faults = Self::faults(&rewards);
        }
        if faults.is_empty() { Ok(rewards) } else { Err(Faults(faults)) }
    }

    /// What the types leave possible in a list of tables and is wrong all the same, each fault with
    /// its place, such as `reward[1].name`. Places count from 0.
    pub fn faults(rewards: &[Self]) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, reward) in rewards.iter().enumerate() {
            let earlier = rewards[..index].iter().any(|earlier| earlier.name == reward.name);
            let own = reward.own_faults(earlier);
            faults.extend(own.map(|(field, what)| format!("`reward[{index}].{field}`: {what}")));
        }
        faults
    }

    fn own_faults(&self, taken: bool) -> impl Iterator<Item = (&'static str, String)> {
        let name = &self.name;
        let name_fault = if !is_identifier(name) {
            Some(format!("`{name}` must be letters, digits and `_`, without a digit in front"))
        } else if BUILT_IN.contains(&name.as_str()) {
            Some(format!("`{name}` is the name of a built-in reward, take another"))
        } else {
            taken.then(|| format!("`{name}` is the name of an earlier reward, take another"))
        };
        let source_fault = match &self.source {
            Source::Command(words) if words.first().is_none_or(String::is_empty) => {
                Some(("command", "names no program, give one and its arguments".to_owned()))
            }
            Source::Url(url) if !["http://", "https://"].iter().any(|s| url.starts_with(s)) => {
                Some(("url", "must begin with `http://` or `https://`".to_owned()))
            }
            _ => None,
        };
        let good_time = Duration::try_from_secs_f64(self.timeout_s).is_ok_and(|t| !t.is_zero());
        let time_fault = (!good_time)
            .then(|| ("timeout_s", format!("is {}, must be more than 0", self.timeout_s)));
        let batch_fault = (self.batch_size == Some(0))
            .then(|| ("batch_size", "is 0, must be 1 or more".to_owned()));
        let name_fault = name_fault.map(|what| ("name", what));
        [name_fault, source_fault, time_fault, batch_fault].into_iter().flatten()
    }
}

/// The names that stages may weigh beside `rewards`.
pub fn names(rewards: &[ExternalReward]) -> Names {
    Names::new(rewards.iter().map(|reward| reward.name.as_str()))
}

fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// Why a reward from outside gave no scores.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// There is no such program.
    #[error("there is no program `{program}`, look at the reward's `command`")]
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
    /// The command's output cannot be read, or its end not awaited.
    #[error("cannot read from `{command}`: {reason}")]
    Io {
        /// The command.
        command: String,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// The command did not end well.
    #[error("`{command}` ended with {status}{}", said(last_line))]
    Ended {
        /// The command.
        command: String,
        /// Its exit status or the signal that ended it.
        status: String,
        /// The last line that it wrote to standard error; empty for none.
        last_line: String,
    },
    /// The command took too long and was killed.
    #[error(
        "`{command}` gave no scores within {timeout_s} s and was killed{}; raise `timeout_s` or \
         lower `batch_size`",
        said(last_line)
    )]
    Timeout {
        /// The command.
        command: String,
        /// The time that it had.
        timeout_s: f64,
        /// The last line that it wrote to standard error; empty for none.
        last_line: String,
    },
    /// The service is out of reach or refuses.
    #[error(transparent)]
    Http(#[from] embodied_r_openai::Error),
    /// No runtime for requests is to be had.
    #[error("cannot set up a runtime for requests: {0}")]
    Runtime(std::io::Error),
    /// The reply is not of the form agreed.
    #[error("`{from}` did not reply with {{\"rewards\": [number or null, …]}}: {why}")]
    Reply {
        /// The command or the address.
        from: String,
        /// What is wrong.
        why: String,
    },
    /// The reply has another number of scores.
    #[error("`{from}` gave {got} rewards for {asked} completions")]
    Count {
        /// The command or the address.
        from: String,
        /// Number of completions.
        asked: usize,
        /// Number of scores.
        got: usize,
    },
}

fn said(last_line: &str) -> String {
    if last_line.is_empty() { String::new() } else { format!(", its last words: {last_line}") }
}

/// A reward from outside, ready to be asked.
#[derive(Debug)]
pub struct External {
    name: String,
    asked: Asked,
    batch_size: usize,
}

#[derive(Debug)]
enum Asked {
    Command { words: Vec<String>, timeout: Duration },
    Http(Http),
}

impl External {
    /// The reward of a table; nothing is started or sent yet.
    ///
    /// # Errors
    /// [`Error::External`]: there is no such program, or the address is none.
    pub fn new(reward: &ExternalReward) -> Result<Self> {
        let fault = |fault| Error::External { name: reward.name.clone(), fault: Box::new(fault) };
        let timeout = Duration::try_from_secs_f64(reward.timeout_s)
            .unwrap_or(Duration::from_secs_f64(TIMEOUT_S));
        let asked = match &reward.source {
            Source::Command(words) => {
                command::find(words).map_err(fault)?;
                Asked::Command { words: words.clone(), timeout }
            }
            Source::Url(url) => Asked::Http(Http::new(url, timeout).map_err(fault)?),
        };
        let batch_size = reward.batch_size.unwrap_or(usize::MAX).max(1);
        Ok(Self { name: reward.name.clone(), asked, batch_size })
    }

    fn batch(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>, Fault> {
        let request = Request {
            prompts: batch.iter().map(|scored| scored.question).collect(),
            completions: batch.iter().map(|scored| scored.completion).collect(),
            solutions: batch.iter().map(|scored| scored.solution).collect(),
            completion_ids: batch.iter().map(|s| s.completion_ids.unwrap_or_default()).collect(),
            ids: batch.iter().map(|scored| scored.id).collect(),
        };
        let (from, reply) = match &self.asked {
            Asked::Command { words, timeout } => {
                let from = command::shown(words);
                let request = request.json(&from)?;
                let reply = command::run(words, request, *timeout)?;
                (from, reply)
            }
            Asked::Http(http) => {
                let from = http.name().to_owned();
                let reply = http.post(request.json(&from)?)?;
                (from, reply)
            }
        };
        let rewards = rewards(&from, &reply)?;
        if rewards.len() != batch.len() {
            return Err(Fault::Count { from, asked: batch.len(), got: rewards.len() });
        }
        let score = |value: Option<f64>| match value {
            Some(_) => Score { value, why: None },
            None => Score::absent(format!("`{}` gave no score", self.name)),
        };
        Ok(rewards.into_iter().map(score).collect())
    }
}

impl Reward for External {
    fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// [`Error::External`] where the command or the service fails, after its retries, or replies
    /// with something else than one score a completion; [`Error::Async`] for a service on a thread
    /// that drives an async runtime.
    fn score(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>> {
        if matches!(self.asked, Asked::Http(_)) && tokio::runtime::Handle::try_current().is_ok() {
            return Err(Error::Async);
        }
        let fault = |fault| Error::External { name: self.name.clone(), fault: Box::new(fault) };
        let mut scores = Vec::with_capacity(batch.len());
        for batch in batch.chunks(self.batch_size) {
            scores.extend(self.batch(batch).map_err(fault)?);
        }
        Ok(scores)
    }
}

/// What a command or a service is asked.
#[derive(Serialize)]
struct Request<'a> {
    prompts: Vec<&'a str>,
    completions: Vec<&'a str>,
    solutions: Vec<&'a str>,
    completion_ids: Vec<&'a [u32]>,
    ids: Vec<&'a str>,
}

impl Request<'_> {
    fn json(&self, from: &str) -> Result<Vec<u8>, Fault> {
        serde_json::to_vec(self)
            .map_err(|error| Fault::Reply { from: from.to_owned(), why: error.to_string() })
    }
}

/// The scores in a reply.
fn rewards(from: &str, reply: &[u8]) -> Result<Vec<Option<f64>>, Fault> {
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
    let why = match (text.is_empty(), not_finite) {
        (true, _) => "the reply is empty".to_owned(),
        (_, Some(word)) => format!("`{word}` is no number of JSON, null stands for no score"),
        _ => {
            let begin: String = text.chars().take(SHOWN_CHARS).collect();
            let more = if begin.len() < text.len() { "…" } else { "" };
            let begin = begin.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{error}; it begins `{begin}{more}`")
        }
    };
    Err(Fault::Reply { from: from.to_owned(), why })
}

/// Characters of a reply that are shown where it is wrong.
const SHOWN_CHARS: usize = 80;

#[cfg(test)]
mod tests;

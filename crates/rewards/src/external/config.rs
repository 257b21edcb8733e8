//! The configuration of external rewards, and its form in a settings file.

use std::time::Duration;

use embodied_r_openai::check_base_url;
use serde::{Deserialize, Serialize};
use toml::Value;

use crate::names::{BUILT_IN_REWARDS, RewardNames};
use crate::validation::{ValidationErrors, unknown};

/// Default timeout of a batch in seconds.
pub(super) const TIMEOUT_S: f64 = 60.0;

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
#[serde(try_from = "Table", into = "Table")]
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
    pub fn list_from_toml(value: &Value) -> Result<Vec<Self>, ValidationErrors> {
        let mut errors = Vec::new();
        let rewards = parsed(value, &mut errors);
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

const FIELDS: [&str; 5] = ["name", "command", "url", "timeout_s", "batch_size"];

/// A `[[reward]]` table.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default = "timeout_s")]
    timeout_s: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_size: Option<usize>,
}

fn timeout_s() -> f64 {
    TIMEOUT_S
}

impl TryFrom<Table> for ExternalRewardConfig {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let backend = match (table.command, table.url) {
            (Some(argv), None) => RewardBackend::Command(argv),
            (None, Some(url)) => RewardBackend::Url(url),
            (Some(_), Some(_)) => {
                return Err("`command` and `url` are mutually exclusive; set one");
            }
            (None, None) => return Err("needs a backend; set `command` or `url`"),
        };
        let Table { name, timeout_s, batch_size, .. } = table;
        Ok(Self { name, backend, timeout_s, batch_size })
    }
}

impl From<ExternalRewardConfig> for Table {
    fn from(reward: ExternalRewardConfig) -> Self {
        let (command, url) = match reward.backend {
            RewardBackend::Command(argv) => (Some(argv), None),
            RewardBackend::Url(url) => (None, Some(url)),
        };
        let ExternalRewardConfig { name, timeout_s, batch_size, .. } = reward;
        Self { name, command, url, timeout_s, batch_size }
    }
}

/// The rewards in `value` that parse; messages about the others go to `errors`.
fn parsed(value: &Value, errors: &mut Vec<String>) -> Vec<ExternalRewardConfig> {
    let Some(list) = value.as_array() else {
        errors.push("`reward`: must be a list of tables, `[[reward]]`".to_owned());
        return Vec::new();
    };
    let mut rewards = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("reward[{index}]");
        let mut known = value.clone();
        if let Some(table) = known.as_table_mut() {
            let others = table.keys().filter(|name| !FIELDS.contains(&name.as_str()));
            errors.extend(others.map(|name| unknown(&path, name, "field", &FIELDS)));
            table.retain(|name, _| FIELDS.contains(&name));
        }
        match known.try_into::<ExternalRewardConfig>() {
            Ok(reward) => rewards.push(reward),
            Err(error) => errors.push(format!("`{path}`: {}", error.message())),
        }
    }
    rewards
}

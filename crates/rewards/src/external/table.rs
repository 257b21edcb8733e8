//! The serialized form of an external reward.

use serde::{Deserialize, Serialize};
use toml::Value;

use super::{ExternalRewardConfig, RewardBackend, TIMEOUT_S};
use crate::stages::unknown;

const FIELDS: [&str; 5] = ["name", "command", "url", "timeout_s", "batch_size"];

/// A `[[reward]]` table.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
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
pub(super) fn rewards(value: &Value, errors: &mut Vec<String>) -> Vec<ExternalRewardConfig> {
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

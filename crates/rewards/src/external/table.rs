//! A reward from outside as it is written.

use serde::{Deserialize, Serialize};
use toml::Value;

use super::{ExternalReward, Source, TIMEOUT_S};
use crate::stages::unknown;

const FIELDS: [&str; 5] = ["name", "command", "url", "timeout_s", "batch_size"];

/// A `[[reward]]` table, field by field.
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

impl TryFrom<Table> for ExternalReward {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let source = match (table.command, table.url) {
            (Some(words), None) => Source::Command(words),
            (None, Some(url)) => Source::Url(url),
            (Some(_), Some(_)) => return Err("has both `command` and `url`, keep one of them"),
            (None, None) => return Err("needs `command` or `url`, who scores"),
        };
        let Table { name, timeout_s, batch_size, .. } = table;
        Ok(Self { name, source, timeout_s, batch_size })
    }
}

impl From<ExternalReward> for Table {
    fn from(reward: ExternalReward) -> Self {
        let (command, url) = match reward.source {
            Source::Command(words) => (Some(words), None),
            Source::Url(url) => (None, Some(url)),
        };
        let ExternalReward { name, timeout_s, batch_size, .. } = reward;
        Self { name, command, url, timeout_s, batch_size }
    }
}

/// The rewards in `value`; those with faults of form are left out.
pub(super) fn rewards(value: &Value, faults: &mut Vec<String>) -> Vec<ExternalReward> {
    let Some(list) = value.as_array() else {
        faults.push("`reward`: must be a list of tables, `[[reward]]`".to_owned());
        return Vec::new();
    };
    let mut rewards = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let place = format!("reward[{index}]");
        let mut known = value.clone();
        if let Some(table) = known.as_table_mut() {
            let strange = table.keys().filter(|name| !FIELDS.contains(&name.as_str()));
            faults.extend(strange.map(|name| unknown(&place, name, "field", &FIELDS)));
            table.retain(|name, _| FIELDS.contains(&name));
        }
        match known.try_into::<ExternalReward>() {
            Ok(reward) => rewards.push(reward),
            Err(error) => faults.push(format!("`{place}`: {}", error.message())),
        }
    }
    rewards
}

//! The version of the format.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::json;

/// The version of the format, `codebase_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// v2.1: a parquet file and a video per episode. v2.0, which differs in its statistics alone, is read as v2.1.
    V21,
    /// v3.0: several episodes per file.
    V30,
}

impl Version {
    /// As `codebase_version` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V21 => "v2.1",
            Self::V30 => "v3.0",
        }
    }

    /// The version that `codebase_version` of the file at `path` names.
    ///
    /// # Errors
    /// It is missing or wrong, or not read; with the name of LeRobot's converter.
    pub(crate) fn of(path: &Path, value: Option<&Value>) -> Result<Self> {
        let Some(Value::String(text)) = value else {
            let found = value.map_or("is missing".to_owned(), |value| {
                format!("is {}, not a text", json::shortened(value))
            });
            return Err(Error::field(path, "codebase_version", found));
        };
        let number = text.strip_prefix('v').unwrap_or(text);
        let advice = match number.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
            _ if matches!(number, "2.0" | "2.1") => return Ok(Self::V21),
            _ if number == "3.0" => return Ok(Self::V30),
            Some(0 | 1) => {
                "convert it with LeRobot 0.3's `python -m lerobot.datasets.v2.convert_dataset_v1_to_v2`"
            }
            _ => "v2.0, v2.1 and v3.0 are read",
        };
        Err(Error::Version { path: path.into(), found: text.chars().take(40).collect(), advice })
    }
}

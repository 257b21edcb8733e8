//! What a run is trained with.

use serde::{Deserialize, Serialize};

/// The file in a run's folder with its [`Environment`].
pub const ENVIRONMENT_FILE: &str = "environment.json";

/// The program and the machine of a run, as of its last start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The program's version.
    pub version: String,
    /// The commit that the program was built from, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Processor, vector instructions and cores of the first rank's machine, and its GPUs.
    pub machine: String,
}

//! What a run was trained with: version, commit and machine.

use std::path::Path;

use embodied_r_grpo::events::ENVIRONMENT_FILE;
use indexmap::IndexMap;

/// The fields of the run's environment with their names, in order; empty if the run has none.
pub(crate) fn environment(run: &Path) -> IndexMap<String, String> {
    let text = std::fs::read_to_string(run.join(ENVIRONMENT_FILE)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

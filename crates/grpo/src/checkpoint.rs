//! Checkpoints: folders that are written atomically.
//!
//! A checkpoint is a model in Hugging Face's layout with the optimizer state, the run's state, its settings, and a
//! manifest of all files' lengths and hashes. With several ranks, each writes its shard of the weights and optimizer
//! state into files of its own. The folder is filled under a hidden name, flushed to disk and renamed, so a kill at any
//! time leaves the previous checkpoint; later damage is detected with the manifest.

mod atomic_folder;
mod damaged;
mod entry_kind;
pub(crate) mod finite;
mod lock;
mod manifest;
mod retention;
mod run;
mod stale_files;
mod state;
mod stored;

use std::fs;
use std::path::Path;

pub use damaged::{Damage, DamagedCheckpoint};
pub use entry_kind::EntryKind;
pub use finite::non_finite;
pub use lock::RunLock;
pub use manifest::MANIFEST_FILE;
pub use retention::{Milestones, RetentionPolicy};
pub use run::{Checkpoints, LatestIntact};
pub use state::{BestCheckpoint, BestMetric, MetricDirection, State};
pub use stored::Checkpoint;

use crate::error::{Error, Result};

/// Name of the state file in a checkpoint.
pub const STATE_FILE: &str = "trainer_state.json";
/// Name of the settings file in a run's folder and in a checkpoint.
pub const SETTINGS_FILE: &str = "settings.toml";
/// Name of the final model's folder in a run's folder.
pub const FINAL_FOLDER: &str = "final";

const PREFIX: &str = "checkpoint-";
const REFERENCE_PREFIX: &str = "reference-";

/// The name of the checkpoint at step `step`.
pub fn name(step: u64) -> String {
    format!("{PREFIX}{step}")
}

/// The step of a checkpoint's folder name; `None` for other names, also for `checkpoint-007` or `checkpoint-+7`, which
/// no run writes.
pub fn step_of(folder: &str) -> Option<u64> {
    let step = folder.strip_prefix(PREFIX)?.parse().ok()?;
    (name(step) == folder).then_some(step)
}

/// Whether a folder of this name is a run's frozen reference.
fn is_reference(folder: &str) -> bool {
    let step = folder.strip_prefix(REFERENCE_PREFIX).and_then(|step| step.parse::<u64>().ok());
    step.is_some_and(|step| format!("{REFERENCE_PREFIX}{step}") == folder)
}

/// The names in `folder`; empty if the folder does not exist.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", folder)(error)),
    };
    entries
        .map(|entry| {
            let entry = entry.map_err(Error::io("read", folder))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests;

//! Checkpoints: folders that either are whole or are not there.
//!
//! A checkpoint is a model in Hugging Face's layout, with four files beside it: the optimiser's
//! moments, the run's state, the settings that the run was told, and a manifest of all files' lengths
//! and hashes. Of several ranks each writes a part of the weights and the moments that it has, into files of its own. It is
//! filled under a hidden name, flushed to disk and renamed, so that a kill at any moment leaves the last one; what damages
//! it later is found by the manifest.

mod keep;
mod leftovers;
mod lock;
mod manifest;
mod run;
mod state;
mod stored;
mod whole;

use std::fs;
use std::path::Path;

pub use keep::{Keep, Milestones};
use leftovers::sweep;
pub use lock::RunLock;
pub use manifest::{Damage, MANIFEST_FILE};
pub use run::{Checkpoints, LastWhole};
pub use state::{Best, BestBy, State, Wanted};
pub use stored::{Checkpoint, Damaged};

use crate::error::{Error, Result};

/// Name of the state's file in a checkpoint.
pub const STATE_FILE: &str = "trainer_state.json";
/// Name of the settings' file in a run's folder and in a checkpoint.
pub const SETTINGS_FILE: &str = "settings.toml";
/// Name of the folder of the last model in a run's folder.
pub const FINAL_FOLDER: &str = "final";

const PREFIX: &str = "checkpoint-";
const REFERENCE_PREFIX: &str = "reference-";

/// The name of the checkpoint after `step` steps.
pub fn name(step: u64) -> String {
    format!("{PREFIX}{step}")
}

/// The steps done at the checkpoint of this name; none if it is no checkpoint's.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The names in `folder`; a folder that is not there has none.
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

//! Batches of skipped steps, dumped for `inspect loss`.

use std::path::{Path, PathBuf};

use embodied_r_files::write_atomic;

use crate::error::{Error, Result};
use crate::inspect::batch_file::BatchFile;

/// Folder of the batch dumps within a run's folder.
pub(crate) const SKIPPED_FOLDER: &str = "skipped";

/// Dumps the batch of step `step` (from 0) into the run's folder `run`, in the schema that `inspect loss` reads;
/// returns the path.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn dump(run: &Path, step: u64, batch: &BatchFile) -> Result<PathBuf> {
    let path = dump_path(run, step);
    let bytes = serde_json::to_vec(batch).map_err(Error::json(&path))?;
    write_atomic(&path, &bytes)?;
    Ok(path)
}

/// The path of the dump of step `step` (from 0) in the run's folder `run`.
pub(crate) fn dump_path(run: &Path, step: u64) -> PathBuf {
    run.join(SKIPPED_FOLDER).join(format!("step-{:06}.json", step + 1))
}

/// The step, from 1, of a dump's file name; `None` for other names.
pub(crate) fn step_of_dump(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.strip_suffix(".json")?.parse().ok()
}

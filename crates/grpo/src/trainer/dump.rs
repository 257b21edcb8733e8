//! The batch of a step that had to be left out, written down so that it can be looked into.

use std::path::PathBuf;

use embodied_r_data::write::write_atomic;

use super::Trainer;
use crate::batch_file::BatchFile;
use crate::error::{Error, Result};
use crate::micro_batch::MicroBatch;
use crate::model::Model;

/// Folder of the dumps in a run's folder.
const FOLDER: &str = "skipped";

impl<M: Model> Trainer<'_, M> {
    /// Writes the micro-batches of step `step` (from 0) as JSON; gives the file.
    pub(super) fn dump(&self, step: u64, batches: &[MicroBatch]) -> Result<PathBuf> {
        let path = self.settings.output.join(FOLDER).join(format!("step-{:06}.json", step + 1));
        let file = BatchFile::of(batches, self.settings.loss());
        let bytes = serde_json::to_vec(&file).map_err(Error::json(&path))?;
        write_atomic(&path, &bytes)?;
        Ok(path)
    }
}

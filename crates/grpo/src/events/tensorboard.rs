//! Events in TensorBoard's format.

mod message;
mod record;

use std::path::Path;

use embodied_r_files::AppendFile;

use super::{Event, Sink, describe, now_s};
use crate::error::{Error, Result};

/// Name of the folder in a run's folder, as in Hugging Face's trainer.
pub const TENSORBOARD_FOLDER: &str = "runs";

/// Name of the file; TensorBoard recognizes its prefix.
const FILE: &str = "events.out.tfevents.0.embodied-r";

/// Appends events to a TensorBoard file: metrics as scalars, stages and warnings as texts.
///
/// A run has one file. On resume it is truncated to the checkpoint, so that no step shows twice; since the same records
/// follow, apart from times, a running TensorBoard continues seamlessly.
#[derive(Debug)]
pub struct TensorBoard {
    file: AppendFile,
}

impl TensorBoard {
    /// Opens the file in the run's folder `run` and truncates it to `keep` bytes.
    ///
    /// # Errors
    /// The file cannot be opened, truncated or written.
    pub fn open(run: &Path, keep: u64) -> Result<Self> {
        Self::open_at(run, keep, now_s())
    }

    /// As [`Self::open`]; a new file's first event has the time `time_s`.
    fn open_at(run: &Path, keep: u64, time_s: f64) -> Result<Self> {
        let folder = run.join(TENSORBOARD_FOLDER);
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let mut opened = Self { file: AppendFile::cut_to(&folder.join(FILE), keep)? };
        if opened.length() == 0 {
            opened.write(&message::version(time_s))?;
        }
        Ok(opened)
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.file.length()
    }

    /// Flushes what was written to disk.
    ///
    /// # Errors
    /// The file cannot be flushed.
    pub fn flush(&self) -> Result<()> {
        Ok(self.file.flush()?)
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.file.append(&record::record(data))?;
        Ok(())
    }

    fn write_text(&mut self, step: u64, tag: &str, event: &Event) -> Result<()> {
        match describe(event) {
            Some(words) => self.write(&message::text(now_s(), step, tag, &words)),
            None => Ok(()),
        }
    }
}

impl Sink for TensorBoard {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Step { step, epoch, time_s, metrics, .. }
            | Event::Eval { step, epoch, time_s, metrics } => {
                let metrics = metrics.iter().map(|(name, value)| (name.as_str(), *value));
                // An evaluation shares the epoch of its step.
                let is_step = matches!(event, Event::Step { .. });
                let epoch = is_step.then_some(("epoch", *epoch));
                self.write(&message::scalars(*time_s, *step, epoch.into_iter().chain(metrics)))
            }
            Event::Stage { step, .. } => self.write_text(*step, "stages", event),
            Event::Warning { step, .. } => self.write_text(*step, "warnings", event),
            Event::Skipped { step, .. } => self.write_text(*step, "skipped", event),
            Event::Start { .. }
            | Event::Checkpoint { .. }
            | Event::End { .. }
            | Event::PackingVerified { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

//! The file of events and all other listeners of a run.

use std::path::Path;

use super::{EVENTS_FILE, Event, Jsonl, Sink};
use crate::error::Result;
use crate::rollout::Rollout;

/// Tells events to a run's file and to every other listener.
pub(crate) struct Recorder<'a> {
    file: Jsonl,
    sinks: Vec<Box<dyn Sink + 'a>>,
}

impl<'a> Recorder<'a> {
    /// Opens the file in the run's folder `run` after its first `keep` bytes.
    pub(crate) fn open(run: &Path, keep: u64, sinks: Vec<Box<dyn Sink + 'a>>) -> Result<Self> {
        Ok(Self { file: Jsonl::open(&run.join(EVENTS_FILE), keep)?, sinks })
    }

    /// Tells `event` to all.
    pub(crate) fn emit(&mut self, event: &Event) -> Result<()> {
        // A resumed run adds no start of its own: its record is that of a run that never stopped.
        if self.file.length() == 0 || !matches!(event, Event::Start { .. }) {
            self.file.event(event)?;
        }
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    /// Tells the completions of a step, from 1, to all.
    /// Tells of an event that is not part of the run's record.
    pub(crate) fn tell(&mut self, event: &Event) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    pub(crate) fn completions(&mut self, step: u64, rollouts: &[Rollout]) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.completions(step, rollouts))
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.file.length()
    }
}

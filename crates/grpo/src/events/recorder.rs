//! Dispatches events to the run's files and sinks.

use std::path::Path;

use super::{EVENTS_FILE, Event, Jsonl, Sink, TensorBoard};
use crate::checkpoint::State;
use crate::error::Result;
use crate::rollout::Rollout;
use crate::settings::ReportTo;

/// Writes events to a run's files and passes them to its sinks.
pub(crate) struct Recorder<'a> {
    /// `None` on ranks other than 0.
    file: Option<Jsonl>,
    tensorboard: Option<TensorBoard>,
    sinks: Vec<Box<dyn Sink + 'a>>,
}

impl<'a> Recorder<'a> {
    /// Opens the files in the run's folder `run`, truncated to their lengths at `state`.
    pub(crate) fn open(
        run: &Path,
        state: &State,
        report_to: &ReportTo,
        sinks: Vec<Box<dyn Sink + 'a>>,
    ) -> Result<Self> {
        let tensorboard = report_to.tensorboard();
        Ok(Self {
            file: Some(Jsonl::open(&run.join(EVENTS_FILE), state.events_bytes)?),
            tensorboard: tensorboard
                .then(|| TensorBoard::open(run, state.tensorboard_bytes))
                .transpose()?,
            sinks,
        })
    }

    /// A recorder without outputs.
    pub(crate) fn silent() -> Self {
        Self { file: None, tensorboard: None, sinks: Vec::new() }
    }

    /// Records `event` and passes it to all sinks.
    pub(crate) fn emit(&mut self, event: &Event) -> Result<()> {
        // A resumed run records no second start, so that its record equals that of an uninterrupted run.
        let is_start = matches!(event, Event::Start { .. });
        if let Some(file) = self.file.as_mut().filter(|file| file.length() == 0 || !is_start) {
            file.event(event)?;
        }
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.event(event)?;
        }
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    /// Passes an event to the sinks without recording it.
    pub(crate) fn notify(&mut self, event: &Event) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    /// Passes the completions of a step, from 1, to all sinks.
    pub(crate) fn completions(&mut self, step: u64, rollouts: &[Rollout]) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.completions(step, rollouts))
    }

    /// Flushes the files to disk and stores their lengths in `state`, so that a checkpoint never refers to bytes lost
    /// in a crash.
    pub(crate) fn mark(&self, state: &mut State) -> Result<()> {
        if let Some(file) = &self.file {
            file.flush()?;
            state.events_bytes = file.length();
        }
        if let Some(tensorboard) = &self.tensorboard {
            tensorboard.flush()?;
            state.tensorboard_bytes = tensorboard.length();
        }
        Ok(())
    }
}

//! The files of events and all other listeners of a run.

use std::path::Path;

use super::{EVENTS_FILE, Event, Jsonl, Sink, TensorBoard};
use crate::checkpoint::State;
use crate::error::Result;
use crate::rollout::Rollout;
use crate::settings::ReportTo;

/// Tells events to a run's files and to every other listener.
pub(crate) struct Recorder<'a> {
    /// None of a rank that leaves it to the first one.
    file: Option<Jsonl>,
    tensorboard: Option<TensorBoard>,
    sinks: Vec<Box<dyn Sink + 'a>>,
}

impl<'a> Recorder<'a> {
    /// Opens the files in the run's folder `run` where they were at `state`.
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

    /// Tells nobody.
    pub(crate) fn silent() -> Self {
        Self { file: None, tensorboard: None, sinks: Vec::new() }
    }

    /// Tells `event` to all.
    pub(crate) fn emit(&mut self, event: &Event) -> Result<()> {
        // A resumed run adds no start of its own: its record is that of a run that never stopped.
        let is_start = matches!(event, Event::Start { .. });
        if let Some(file) = self.file.as_mut().filter(|file| file.length() == 0 || !is_start) {
            file.event(event)?;
        }
        if let Some(tensorboard) = &mut self.tensorboard {
            tensorboard.event(event)?;
        }
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    /// Tells of an event that is not part of the run's record.
    pub(crate) fn tell(&mut self, event: &Event) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.event(event))
    }

    /// Tells the completions of a step, from 1, to all.
    pub(crate) fn completions(&mut self, step: u64, rollouts: &[Rollout]) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.completions(step, rollouts))
    }

    /// Flushes the files to disk and writes down in `state` how long they are: a checkpoint must not
    /// tell of more than there is after a crash.
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

//! Progress as lines on standard error.

use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use embodied_r_data::Progress;

/// Interval between lines.
const LINES_EVERY: Duration = Duration::from_secs(20);

/// Steps between two saves.
const SAVE_STEPS: u64 = 500;

/// The steps of a training phase: shows them, and saves the weights periodically.
pub(crate) struct StepProgress<'a> {
    pub(crate) lines: &'a Lines,
    pub(crate) phase: &'static str,
    pub(crate) save: &'a dyn Fn() -> embodied_r_policy::Result<()>,
}

impl StepProgress<'_> {
    /// A phase of so many steps begins.
    pub(crate) fn start(&self, steps: u64) {
        self.lines.start(self.phase, Some(steps));
    }

    /// A step is done: its number, from 1, and what to show of it.
    ///
    /// # Errors
    /// The weights cannot be saved.
    pub(crate) fn step(&self, step: u64, status: &str) -> embodied_r_policy::Result<()> {
        if step.is_multiple_of(SAVE_STEPS) {
            (self.save)()?;
        }
        self.lines.advance(1);
        self.lines.message(status);
        Ok(())
    }
}

/// Writes a line of progress from time to time.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Phase>);

#[derive(Default)]
struct Phase {
    name: String,
    total: Option<u64>,
    done: u64,
    status: String,
    line: Option<Instant>,
}

impl Lines {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Lines {
    fn start(&self, phase: &str, total: Option<u64>) {
        let line = Some(Instant::now());
        *self.phase() = Phase { name: phase.to_owned(), total, line, ..Phase::default() };
    }

    fn advance(&self, units: u64) {
        let mut phase = self.phase();
        phase.done += units;
        if phase.line.is_some_and(|line| line.elapsed() < LINES_EVERY) {
            return;
        }
        phase.line = Some(Instant::now());
        let Phase { name, total, done, status, .. } = &*phase;
        let total = total.map_or(String::new(), |total| format!("/{total}"));
        // There is nowhere to report that standard error is closed.
        let _ = writeln!(io::stderr(), "{name}: {done}{total}  {status}");
    }

    fn message(&self, text: &str) {
        text.clone_into(&mut self.phase().status);
    }

    fn warn(&self, text: &str) {
        let _ = writeln!(io::stderr(), "warning: {text}");
    }

    fn finish(&self) {}
}

//! The progress bar: an updating line on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use embodied_r_data::Progress;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Interval between plain lines.
const LINES_EVERY: Duration = Duration::from_secs(20);

/// Steps between two saves.
const SAVE_STEPS: u64 = 500;

/// The steps of a training phase: shows them, and saves the weights periodically.
pub(crate) struct StepProgress<'a> {
    pub(crate) bar: &'a Bar,
    pub(crate) phase: &'static str,
    pub(crate) save: &'a dyn Fn() -> embodied_r_policy::Result<()>,
}

impl StepProgress<'_> {
    /// A phase of so many steps begins.
    pub(crate) fn start(&self, steps: u64) {
        self.bar.start(self.phase, Some(steps));
    }

    /// A step is done: its number, from 1, and what to show of it.
    ///
    /// # Errors
    /// The weights cannot be saved.
    pub(crate) fn step(&self, step: u64, status: &str) -> embodied_r_policy::Result<()> {
        if step.is_multiple_of(SAVE_STEPS) {
            (self.save)()?;
        }
        self.bar.advance(1);
        self.bar.message(status);
        Ok(())
    }
}

/// Shows progress on standard error.
#[derive(Default)]
pub(crate) struct Bar {
    shown: Mutex<Option<Shown>>,
}

struct Shown {
    bar: ProgressBar,
    /// When the last plain line was written; `None` on a terminal, which shows the bar.
    line: Option<Instant>,
}

impl Bar {
    fn shown(&self) -> MutexGuard<'_, Option<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// Writes a plain line, unless one was written recently.
    fn write_line(&mut self) {
        if self.line.is_none_or(|line| line.elapsed() < LINES_EVERY) {
            return;
        }
        self.line = Some(Instant::now());
        let bar = &self.bar;
        let of = bar.length().map_or(String::new(), |length| format!("/{length}"));
        let (elapsed, left) = (HumanDuration(bar.elapsed()), HumanDuration(bar.eta()));
        let status = Some(bar.message()).filter(|message| !message.is_empty());
        let status = status.map_or(String::new(), |message| format!(", {message}"));
        // There is nowhere to report that standard error is closed.
        let _ = writeln!(
            io::stderr(),
            "{}: {}{of} after {elapsed:#}, about {left:#} left{status}",
            bar.prefix(),
            bar.position()
        );
    }
}

impl Progress for Bar {
    fn start(&self, phase: &str, total: Option<u64>) {
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = "{prefix} [{bar:30}] {pos}/{len} {elapsed_precise}<{eta_precise} {wide_msg}";
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(phase.to_owned());
        let line = match io::stderr().is_terminal() {
            true => {
                bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
                bar.enable_steady_tick(Duration::from_millis(500));
                None
            }
            false => {
                bar.set_draw_target(ProgressDrawTarget::hidden());
                Some(Instant::now())
            }
        };
        *self.shown() = Some(Shown { bar, line });
    }

    fn advance(&self, units: u64) {
        if let Some(shown) = self.shown().as_mut() {
            shown.bar.inc(units);
            shown.write_line();
        }
    }

    fn message(&self, text: &str) {
        if let Some(shown) = self.shown().as_ref() {
            shown.bar.set_message(text.to_owned());
        }
    }

    fn warn(&self, text: &str) {
        let write = || {
            let _ = writeln!(io::stderr(), "warning: {text}");
        };
        match self.shown().as_ref() {
            Some(shown) => shown.bar.suspend(write),
            None => write(),
        }
    }

    fn finish(&self) {
        if let Some(shown) = self.shown().take() {
            shown.bar.finish_and_clear();
        }
    }
}

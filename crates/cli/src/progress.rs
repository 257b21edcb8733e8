//! The progress bar: an updating line on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use embodied_r_data::Progress;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::escaped;

/// Interval between plain lines.
const LINES_EVERY: Duration = Duration::from_secs(20);

/// A longer estimate says that nothing has moved for a while.
const MAX_ESTIMATE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
    fn with_shown(&self, act: impl FnOnce(&mut Shown)) {
        let mut guard = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(shown) = guard.as_mut() {
            act(shown);
        }
    }
}

impl Shown {
    /// Writes a plain line, unless one was written recently.
    fn write_line(&mut self) {
        if self.line.is_none_or(|line| line.elapsed() < LINES_EVERY) {
            return;
        }
        self.line = Some(Instant::now());
        let (bar, elapsed) = (&self.bar, HumanDuration(self.bar.elapsed()));
        let total = bar.length().map_or(String::new(), |total| format!("/{total}"));
        let left = left(bar.position(), bar.length(), bar.eta());
        let status = format!("{}: {}{total} after {elapsed:#}{left}", bar.prefix(), bar.position());
        match bar.message() {
            message if message.is_empty() => eprintln!("{status}"),
            message => eprintln!("{status}, {message}"),
        }
    }
}

/// The time that is left, once there is an estimate of it.
fn left(position: u64, total: Option<u64>, estimate: Duration) -> String {
    let is_begun = total.is_some_and(|total| (1..total).contains(&position));
    match is_begun && estimate < MAX_ESTIMATE {
        true => format!(", about {:#} left", HumanDuration(estimate)),
        false => String::new(),
    }
}

impl Progress for Bar {
    fn start(&self, phase: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(
                "{prefix} [{bar:30}] {pos}/{len} {elapsed_precise}<{eta_precise} {wide_msg}",
            )),
            None => ProgressBar::new_spinner()
                .with_style(style("{prefix} {spinner} {pos} {elapsed_precise} {wide_msg}")),
        };
        bar.set_prefix(escaped(phase).into_owned());
        let line = if std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
            bar.enable_steady_tick(Duration::from_millis(500));
            None
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            Some(Instant::now())
        };
        let mut guard = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *guard = Some(Shown { bar, line });
    }

    fn advance(&self, units: u64) {
        self.with_shown(|shown| {
            shown.bar.inc(units);
            shown.write_line();
        });
    }

    fn message(&self, text: &str) {
        self.with_shown(|shown| shown.bar.set_message(escaped(text).into_owned()));
    }

    fn warn(&self, text: &str) {
        let guard = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match guard.as_ref() {
            Some(shown) => shown.bar.suspend(|| eprintln!("warning: {text}")),
            None => eprintln!("warning: {text}"),
        }
    }

    fn finish(&self) {
        self.with_shown(|shown| shown.bar.finish_and_clear());
        *self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_shown_while_there_is_an_estimate() {
        let minutes = Duration::from_secs(180);
        assert_eq!(left(1, Some(4), minutes), ", about 3m left");
        for (position, total, estimate) in [
            (0, Some(4), minutes),
            (4, Some(4), minutes),
            (1, None, minutes),
            // Nothing has moved for a while.
            (1, Some(4), Duration::from_secs(u64::MAX)),
        ] {
            assert_eq!(left(position, total, estimate), "");
        }
    }
}

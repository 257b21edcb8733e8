//! What a run reports on the terminal: its steps and its outcome.

use std::io::IsTerminal as _;

use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::events::{Event, ProgressLine, Sink, describe};
use embodied_r_grpo::trainer::RunOutcome;

use crate::exit::Status;
use crate::output::outln;
use crate::progress::Bar;

/// The progress sink: a bar on a terminal, log lines elsewhere.
pub(crate) fn progress<'a>(bar: &'a Bar, phase: &'static str) -> Box<dyn Sink + 'a> {
    match std::io::stderr().is_terminal() {
        true => Box::new(ProgressLine::new(bar, phase)),
        false => Box::new(Lines { steps: 0 }),
    }
}

/// Logs one line per step.
struct Lines {
    steps: u64,
}

impl Sink for Lines {
    fn event(&mut self, event: &Event) -> embodied_r_grpo::Result<()> {
        if let Event::Start { steps, .. } = event {
            self.steps = *steps;
        }
        match (describe(event), event) {
            (Some(words), Event::Step { step, .. }) => {
                eprintln!("step {step}/{}  {words}", self.steps);
            }
            (Some(words), Event::Skipped { .. } | Event::Warning { .. }) => {
                eprintln!("warning: {words}");
            }
            (Some(words), _) => eprintln!("{words}"),
            (None, _) => {}
        }
        Ok(())
    }
}

/// Prints the outcome of a run.
pub(crate) fn finish(
    outcome: &RunOutcome,
    command: &str,
    process_group: &ProcessGroup,
) -> anyhow::Result<Status> {
    match outcome {
        RunOutcome::Finished(_) if !process_group.is_rank_zero() => Ok(Status::Done),
        RunOutcome::Stopped(_) if !process_group.is_rank_zero() => Ok(Status::Partial),
        RunOutcome::Finished(folder) => {
            outln!("saved the model to {}", folder.display())?;
            Ok(Status::Done)
        }
        RunOutcome::Stopped(checkpoint) => {
            outln!(
                "stopped at {}; resume with `embodied-r {command} --resume {}`",
                checkpoint.display(),
                checkpoint.parent().unwrap_or(checkpoint).display()
            )?;
            Ok(Status::Partial)
        }
    }
}

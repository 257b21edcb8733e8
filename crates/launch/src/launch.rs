//! Launching this program again as the ranks of a job, with restarts.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::SIGUSR2;

use crate::error::{Error, Result};
use crate::lines::LineSink;
use crate::method::LaunchMethod;
use crate::processes::{JobOutcome, LaunchSignals, Output, run};
use crate::restart::{RestartBudget, RestartDecision};

/// Set once a rank has signaled that it aborted the job. One per process, even if it runs several jobs.
static FAILED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A job to launch.
pub struct Job<'a> {
    /// How its ranks are launched.
    pub method: &'a LaunchMethod<'a>,
    /// The program's arguments.
    pub args: Vec<OsString>,
    /// Set to stop all ranks, which then get SIGUSR1.
    pub stop: Arc<AtomicBool>,
    /// Makes the sink of what a rank prints on standard output.
    pub stdout: fn() -> Box<dyn LineSink>,
    /// Makes the sink of what a rank prints on standard error.
    pub stderr: fn() -> Box<dyn LineSink>,
    /// Whether and how the job is restarted after a failure.
    pub restarts: Option<Restarts<'a>>,
}

/// How a job is restarted after a failure.
pub struct Restarts<'a> {
    /// The most restarts.
    pub most: u32,
    /// The step of the job's last checkpoint.
    pub last_step: &'a dyn Fn() -> Option<u64>,
    /// The arguments that continue from the last checkpoint, given its step.
    pub args: &'a dyn Fn(Option<u64>) -> Vec<OsString>,
    /// Reports what happens after a failure at the given step.
    pub report: &'a dyn Fn(&RestartDecision, Option<u64>),
}

/// Launches the ranks, and launches them again after a failure while the restarts allow it.
///
/// # Errors
/// They cannot be started.
pub fn launch(job: Job<'_>) -> Result<JobOutcome> {
    let Job { method, mut args, stop, stdout, stderr, restarts } = job;
    let failed = Arc::clone(FAILED.get_or_init(Arc::default));
    signal_hook::flag::register(SIGUSR2, Arc::clone(&failed))
        .map_err(Error::io("handle signals"))?;
    let signals = LaunchSignals { stop, failed };
    let output = Output { stdout, stderr };
    let mut budget = RestartBudget::new(restarts.as_ref().map_or(0, |restarts| restarts.most));
    loop {
        let outcome = run(method.process_specs(&args)?, output, &signals)?;
        let Some(restarts) = &restarts else { return Ok(outcome) };
        if outcome != JobOutcome::Failed || signals.stop.load(Ordering::Relaxed) {
            return Ok(outcome);
        }
        let step = (restarts.last_step)();
        let decision = budget.after_failure(step);
        (restarts.report)(&decision, step);
        match decision {
            RestartDecision::Restart { .. } => args = (restarts.args)(step),
            RestartDecision::NoProgress | RestartDecision::Exhausted => return Ok(outcome),
        }
    }
}

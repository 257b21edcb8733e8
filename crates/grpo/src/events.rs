//! The events of a run and their sinks.
//!
//! The trainer emits [`Event`]s; [`Sink`]s consume them. Metric names are TRL's.

mod completions;
mod environment;
mod jsonl;
mod line;
mod recorder;
pub(crate) mod skipped;
mod tensorboard;
mod warnings;

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub(crate) use completions::{COLUMNS, WHY, step_of_completions};
pub use completions::{COMPLETIONS_FOLDER, DRAWN, Parquet, drawn};
pub use environment::{ENVIRONMENT_FILE, Environment};
pub use jsonl::{EVENTS_FILE, Jsonl};
pub use line::{ProgressLine, describe};
pub(crate) use recorder::Recorder;
pub use tensorboard::{TENSORBOARD_FOLDER, TensorBoard};
pub use warnings::{FormatFailures, StepObservation, WarningKind, WarningMonitor};

use crate::error::Result;
use crate::non_finite::Diagnosis;
use crate::rollout::Rollout;

/// Metrics by name, in the order of logging.
pub type Metrics = IndexMap<String, f64>;

/// Fields and metrics that depend on clock and machine, and differ between otherwise identical runs.
#[cfg(test)]
pub(crate) const NONDETERMINISTIC_FIELDS: [&str; 17] = [
    "time_s",
    "completions_per_rank",
    "busy_share_per_rank",
    "step_time",
    "tokens_per_second",
    "time/rollout",
    "time/rewards",
    "time/reference",
    "time/update",
    "time/optimizer",
    "time_left_s",
    "matmul_share",
    "mfu",
    "memory/rollout_gb",
    "memory/reference_gb",
    "memory/update_gb",
    BYTES_SENT,
];

/// Bytes that rank 0 has sent since the last step. It depends on the number of ranks.
pub const BYTES_SENT: &str = "communication/bytes_sent";

/// An event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run starts or resumes.
    Start {
        /// Total steps of the run.
        steps: u64,
        /// Steps already done.
        done: u64,
    },
    /// A stage starts.
    Stage {
        /// Steps done before it.
        step: u64,
        /// Index of the stage, from 0.
        stage: usize,
        /// What triggered it.
        #[serde(default)]
        because: StageTrigger,
        /// The stage's reward weights, reached at the end of the blending.
        weights: IndexMap<String, f64>,
        /// Steps over which the weights are blended from those of the previous stage.
        #[serde(default)]
        blend_steps: u64,
        /// Whether the learning-rate schedule and the optimizer restart.
        restart_schedule: bool,
        /// Whether the reference is reset to the current policy.
        reset_reference: bool,
    },
    /// A step is done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// Epochs so far.
        epoch: f64,
        /// Seconds since 1970.
        time_s: f64,
        /// How a GRPO step was shared among the ranks.
        #[serde(flatten)]
        ranks: RankShares,
        /// The metrics of the step.
        #[serde(flatten)]
        metrics: Metrics,
    },
    /// An evaluation is done; its metrics begin with `eval/`.
    Eval {
        /// Steps done before it.
        step: u64,
        /// Epochs so far.
        epoch: f64,
        /// Seconds since 1970.
        time_s: f64,
        /// The metrics.
        #[serde(flatten)]
        metrics: Metrics,
    },
    /// A warning to the user.
    Warning {
        /// The step, from 1, after which it is emitted.
        step: u64,
        /// The machine-readable kind.
        concern: WarningKind,
        /// The message.
        message: String,
    },
    /// A step was skipped because of non-finite values.
    Skipped {
        /// Its number, from 1.
        step: u64,
        /// What was non-finite.
        what: String,
        /// Iterations whose updates are kept: the step was skipped in a later one.
        #[serde(default, skip_serializing_if = "is_zero")]
        kept_iterations: usize,
        /// Path of its batch dump within the run's folder.
        dump: String,
    },
    /// Packed gradients were verified against per-completion gradients. Sinks receive it, but it is not recorded: a
    /// resumed run verifies again.
    PackingVerified {
        /// The step, from 1.
        step: u64,
        /// Largest difference of a tensor's gradient, relative to that tensor's gradient norm.
        gradient: f64,
        /// The tensor with that difference.
        tensor: String,
        /// Largest difference of a log-probability.
        logp: f64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done before it.
        step: u64,
        /// Its folder, within the run's folder.
        folder: String,
    },
    /// The run is finished.
    End {
        /// Steps done.
        step: u64,
    },
}

impl Event {
    /// The event of the skipped step `step`, from 1, of the run in the folder `run`.
    pub(crate) fn skipped(step: u64, run: &Path, diagnosis: &Diagnosis) -> Self {
        let dump = diagnosis.dump.as_deref().unwrap_or(run);
        let dump = dump.strip_prefix(run).unwrap_or(dump).display().to_string();
        let kept_iterations = diagnosis.kept_iterations;
        Self::Skipped { step, what: diagnosis.found.what(), kept_iterations, dump }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// How a step was shared among the ranks; empty in SFT.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RankShares {
    /// Completions that each rank sampled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub completions_per_rank: Vec<usize>,
    /// The share of the step's time in which each rank did not wait for others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub busy_share_per_rank: Vec<f64>,
}

/// What triggered a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageTrigger {
    /// The run started.
    #[default]
    Start,
    /// The previous stage reached its length.
    Length,
    /// The mean of a metric met the previous stage's `until` condition.
    Until {
        /// The metric.
        metric: String,
        /// Its mean.
        mean: f64,
        /// Number of steps averaged over.
        window: u64,
        /// The condition, such as `above 0.95`.
        mark: String,
    },
}

/// A consumer of events.
pub trait Sink {
    /// Handles an event.
    ///
    /// # Errors
    /// The sink failed; the run should end.
    fn event(&mut self, event: &Event) -> Result<()>;

    /// Handles the completions of a step, from 1, with rewards and advantages.
    ///
    /// # Errors
    /// As [`Sink::event`].
    fn completions(&mut self, step: u64, rollouts: &[Rollout]) -> Result<()> {
        let _ = (step, rollouts);
        Ok(())
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Metrics of the given names, without non-finite values, which JSON cannot represent.
pub(crate) fn finite<const N: usize>(metrics: [(&str, f64); N]) -> Metrics {
    let finite = metrics.into_iter().filter(|(_, value)| value.is_finite());
    finite.map(|(name, value)| (name.to_owned(), value)).collect()
}

//! What happens in a run, told to whoever listens.
//!
//! The trainer emits [`Event`]s; [`Sink`]s decide what becomes of them. Metric names are TRL's.

mod completions;
mod jsonl;
mod line;
mod recorder;
mod tensorboard;
mod warnings;

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub(crate) use completions::{COLUMNS, WHY, step_of_completions};
pub use completions::{COMPLETIONS_FOLDER, Parquet};
pub use jsonl::{EVENTS_FILE, Jsonl};
pub use line::{ProgressLine, in_words};
pub(crate) use recorder::Recorder;
pub use tensorboard::{TENSORBOARD_FOLDER, TensorBoard};
pub use warnings::{Concern, Reasons, Seen, Watch};

use crate::error::Result;
use crate::rollout::Rollout;
use crate::skipped::Diagnosis;

/// Named figures, in the order in which they are told.
pub type Metrics = IndexMap<String, f64>;

/// Fields and metrics that tell of the clock and the machine, and differ between two runs that are the
/// same.
pub const CLOCK: [&str; 14] = [
    "time_s",
    "step_time",
    "tokens_per_second",
    "time/rollout",
    "time/rewards",
    "time/reference",
    "time/update",
    "time/optimizer",
    "time_left_s",
    "matmul_share",
    "memory/rollout_gb",
    "memory/reference_gb",
    "memory/update_gb",
    BYTES_SENT,
];

/// Bytes that the first of several ranks has sent to others since the last step was told, as counted. They depend on how
/// many ranks there are.
pub const BYTES_SENT: &str = "communication/bytes_sent";

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins, or goes on after a checkpoint.
    Start {
        /// Steps of the whole run.
        steps: u64,
        /// Steps that are done already.
        done: u64,
    },
    /// A stage begins.
    Stage {
        /// Steps done before it.
        step: u64,
        /// Its number, from 0.
        stage: usize,
        /// Why it begins now.
        #[serde(default)]
        because: Because,
        /// The weights of the rewards from now on, or once the transition is over.
        weights: IndexMap<String, f64>,
        /// Steps in which the weights go over from those of the stage before.
        #[serde(default)]
        blend_steps: u64,
        /// The learning-rate schedule and the moments begin anew.
        restart_schedule: bool,
        /// The frozen reference is the policy of this moment from now on.
        reset_reference: bool,
    },
    /// A step is done.
    Step {
        /// Its number, from 1.
        step: u64,
        /// Passes over the training set so far.
        epoch: f64,
        /// Seconds since 1970.
        time_s: f64,
        /// The figures of the step.
        #[serde(flatten)]
        metrics: Metrics,
    },
    /// An evaluation is done; its metrics begin with `eval/`.
    Eval {
        /// Steps done before it.
        step: u64,
        /// Passes over the training set so far.
        epoch: f64,
        /// Seconds since 1970.
        time_s: f64,
        /// The figures.
        #[serde(flatten)]
        metrics: Metrics,
    },
    /// Something that the user should look at.
    Warning {
        /// The step, from 1, after which it is told.
        step: u64,
        /// What it is about.
        concern: Concern,
        /// It in words.
        message: String,
    },
    /// A step was left out, since something in it was not finite.
    Skipped {
        /// Its number, from 1.
        step: u64,
        /// What was not finite.
        what: String,
        /// Where its batch was written, within the run's folder.
        dump: String,
    },
    /// Packed gradients were compared with those of every completion by itself. It is told, and not
    /// recorded: a resumed run compares again.
    PackingVerified {
        /// The step, from 1.
        step: u64,
        /// The greatest difference of a tensor's gradient, relative to that tensor's norm.
        gradient: f64,
        /// The tensor that it is of.
        tensor: String,
        /// The greatest difference of a log-probability.
        logp: f64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done before it.
        step: u64,
        /// Its folder, within the run's folder.
        folder: String,
    },
    /// The run is over.
    End {
        /// Steps done.
        step: u64,
    },
}

impl Event {
    /// That step `step`, from 1, was left out of the run in the folder `run`.
    pub(crate) fn skipped(step: u64, run: &Path, diagnosis: &Diagnosis) -> Self {
        let dump = diagnosis.dump.as_deref().unwrap_or(run);
        let dump = dump.strip_prefix(run).unwrap_or(dump).display().to_string();
        Self::Skipped { step, what: diagnosis.found.what(), dump }
    }
}

/// Why a stage begins when it does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Because {
    /// The run begins.
    #[default]
    Start,
    /// The stage before lasted as long as it was to.
    Length,
    /// The mean of a metric passed the mark that ends the stage before.
    Until {
        /// The metric.
        metric: String,
        /// Its mean.
        mean: f64,
        /// Steps that the mean is taken over.
        window: u64,
        /// The mark and the side of it, such as `above 0.95`.
        mark: String,
    },
}

/// A listener.
pub trait Sink {
    /// Something happened.
    ///
    /// # Errors
    /// The listener cannot do its work, and the run should end.
    fn event(&mut self, event: &Event) -> Result<()>;

    /// The completions of a step, from 1, with their rewards and advantages.
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

/// Metrics of the given names, without those that JSON cannot hold.
pub(crate) fn finite<const N: usize>(figures: [(&str, f64); N]) -> Metrics {
    let finite = figures.into_iter().filter(|(_, value)| value.is_finite());
    finite.map(|(name, value)| (name.to_owned(), value)).collect()
}

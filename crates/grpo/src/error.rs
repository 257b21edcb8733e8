//! The crate's error.

use std::path::PathBuf;

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `create` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A JSON file does not have the expected form.
    #[error("`{}` is not the JSON expected: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A line of a file of conversations cannot be learnt from.
    #[error("line {line} of `{}` {what}", path.display())]
    Conversation {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what is wanted.
        what: String,
    },
    /// A batch in a file that no loss can be had of.
    #[error("the batch `{}` {what}", path.display())]
    Batch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another process trains in the folder.
    #[error(
        "another process is training in `{}`; wait for it or end it, or choose another `output`",
        run.display()
    )]
    Busy {
        /// The run's folder.
        run: PathBuf,
    },
    /// A rank does not see the folder that the first one made.
    #[error(
        "rank {rank} does not see `{}`: `output` must be a folder that all machines share",
        folder.display()
    )]
    NotShared {
        /// The folder.
        folder: PathBuf,
        /// The rank.
        rank: usize,
    },
    /// Another rank could not do its part of what all do.
    #[error("rank {rank} failed: {what}")]
    OfRank {
        /// The rank.
        rank: usize,
        /// What it told.
        what: String,
    },
    /// What ranks tell each other cannot be written down or read.
    #[error("cannot {what} what the ranks tell each other: {source}")]
    Exchange {
        /// What was tried, as a verb.
        what: &'static str,
        /// The reason.
        source: postcard::Error,
    },
    /// The ranks of a run, one of which may be lost.
    #[error(transparent)]
    Ranks(#[from] embodied_r_dist::Error),
    /// Packed gradients are not those that they stand for.
    #[error(
        "packed gradients are not those of every completion by itself: `{}` differs by {:.1e} of its \
         norm, log-probabilities by {:.1e}; rounding explains {allowed:.0e}",
        found.tensor, found.gradient, found.logp
    )]
    Packing {
        /// The differences.
        found: crate::verify::Verified,
        /// What rounding explains.
        allowed: f64,
    },
    /// A divergence is wanted of a batch without a reference.
    #[error("the batch has no `ref_logps`, which `beta` above 0 needs")]
    NoReference,
    /// A question that cannot be trained on.
    #[error("question `{id}` {what}")]
    Question {
        /// Its `Question_id`.
        id: String,
        /// What is wrong and what is wanted.
        what: String,
    },
    /// There is not enough to learn from.
    #[error("{left} {what} are left of {given}, one step takes {needed}")]
    TooFew {
        /// What they are: `questions`, `replies`.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// How many are not too long.
        left: usize,
        /// How many a step takes.
        needed: usize,
    },
    /// Settings that contradict each other.
    #[error("{}", listed(.0))]
    Settings(Vec<crate::settings::Fault>),
    /// A checkpoint is not whole, or of another kind.
    #[error("the checkpoint `{}` cannot be used: {what}", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is a run in the output folder already.
    #[error("`{}` holds checkpoints of an earlier run", path.display())]
    OutputTaken {
        /// The output folder.
        path: PathBuf,
    },
    /// The model given to a run that goes on is not the one that it began with.
    #[error("the model `{model}` is not the one that the run in `{}` began with", run.display())]
    OtherModel {
        /// The model given.
        model: String,
        /// The run's folder.
        run: PathBuf,
    },
    /// A folder to resume from has no checkpoint in it.
    #[error("`{}` holds no checkpoint to resume from", path.display())]
    NothingToResume {
        /// The folder.
        path: PathBuf,
    },
    /// A run has checkpoints, and none of them is whole.
    #[error("no checkpoint in `{}` is whole: {}", run.display(), each(damaged))]
    NoneWhole {
        /// The run's folder.
        run: PathBuf,
        /// What is wrong with each.
        damaged: Vec<crate::checkpoint::Damaged>,
    },
    /// A file of moments is not that of the model.
    #[error("the moments in `{}` cannot be used: {what}", path.display())]
    Moments {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The setting that names the metric of the best checkpoint names none that there is.
    #[error("`metric_for_best_model` is `{metric}`, an evaluation gives {}", known.join(", "))]
    NoSuchMetric {
        /// The metric.
        metric: String,
        /// The metrics of an evaluation.
        known: Vec<String>,
    },
    /// Losses or gradients have been infinite or not a number for too long.
    #[error("{steps} steps in a row were left out ({diagnosis})")]
    NotFinite {
        /// How many steps.
        steps: u64,
        /// What is known of the cause.
        diagnosis: Box<crate::skipped::Diagnosis>,
    },
    /// The model gave something that it must not.
    #[error("the model {what}")]
    Model {
        /// What it gave.
        what: String,
    },
    /// The model, its tokenizer or its files.
    #[error(transparent)]
    Policy(Box<embodied_r_policy::Error>),
    /// The rewards.
    #[error(transparent)]
    Rewards(Box<embodied_r_rewards::Error>),
    /// The data.
    #[error(transparent)]
    Data(Box<embodied_r_data::Error>),
    /// An operation of the optimiser.
    #[error(transparent)]
    Kernels(#[from] embodied_r_kernels::Error),
    /// A tensor.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Errors of other crates are boxed, so that a result stays small.
macro_rules! boxed {
    ($($variant:ident: $error:ty),+ $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })+
    };
}

boxed!(Policy: embodied_r_policy::Error, Rewards: embodied_r_rewards::Error, Data: embodied_r_data::Error);

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Json`] about `path`, for `map_err`.
    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| Self::Json { path, source }
    }
}

fn listed(faults: &[crate::settings::Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn each(damaged: &[crate::checkpoint::Damaged]) -> String {
    damaged.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! The crate's error.

use std::path::PathBuf;

use crate::checkpoint::{DamagedCheckpoint, EntryKind};
use crate::data::length_limit::LengthLimit;
use crate::non_finite::{Diagnosis, NonFiniteModel, last_good};
use crate::settings::Fault;
use crate::update::packing_check::PackingCheck;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A JSON file does not have the expected schema.
    #[error("cannot parse `{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// A line of a conversations file cannot be used for training.
    #[error("line {line} of `{}` {what}", path.display())]
    Conversation {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// Questions have answers that the `accuracy` reward cannot score.
    #[error(
        "`{reward}` cannot score the answers of {count} of {total} questions, such as {examples}; give the questions an \
         `answer_type`, such as `text`, or set `allow_unscored = true`"
    )]
    Unscored {
        /// The reward.
        reward: &'static str,
        /// The number of these questions.
        count: usize,
        /// The number of all questions.
        total: usize,
        /// The first of them, and why.
        examples: String,
    },
    /// What the chat template makes of an assistant's message is not the message.
    #[error("the chat template changes the assistant's message: {why}")]
    ChatTemplateChangesReply {
        /// How.
        why: String,
    },
    /// An image cannot be processed or encoded.
    #[error(transparent)]
    Vision(#[from] embodied_r_vision::Error),
    /// The images and videos of the data.
    #[error(transparent)]
    Media(Box<embodied_r_media::Error>),
    /// A batch file is invalid.
    #[error("the batch `{}` {what}", path.display())]
    Batch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A group of a batch file has images that do not fit its prompt.
    #[error("`groups[{group}]` of the batch: {what}")]
    BatchImages {
        /// Index of the group.
        group: usize,
        /// What is wrong.
        what: String,
    },
    /// Another process is training in the folder.
    #[error(
        "another process is training in `{}`; wait for it, stop it or choose another `output`",
        run.display()
    )]
    RunLocked {
        /// The run's folder.
        run: PathBuf,
    },
    /// A rank does not see the folder that rank 0 created.
    #[error(
        "rank {rank} does not see `{}`: `output` must be on a file system that all nodes share",
        folder.display()
    )]
    NotShared {
        /// The folder.
        folder: PathBuf,
        /// The rank.
        rank: usize,
    },
    /// Another rank failed in an operation of all ranks.
    #[error("rank {rank} failed: {what}")]
    RankFailed {
        /// The rank.
        rank: usize,
        /// Its error message.
        what: String,
    },
    /// Communication between ranks failed, or a rank was lost.
    #[error(transparent)]
    Ranks(#[from] embodied_r_dist::Error),
    /// Packed gradients differ from those of each completion alone.
    #[error(
        "packed gradients differ from per-completion gradients: `{}` differs by {:.1e} of its \
         norm, log-probabilities by {:.1e}; the tolerance is {allowed:.0e}",
        found.tensor, found.gradient, found.logp
    )]
    Packing {
        /// The differences.
        found: PackingCheck,
        /// The tolerance: the rounding error to be expected.
        allowed: f64,
    },
    /// `beta` is above 0 and the batch has no reference log-probabilities.
    #[error("the batch has no `ref_logps`, which `beta` above 0 needs")]
    NoReference,
    /// A question cannot be trained on.
    #[error("question `{id}` {what}")]
    Question {
        /// Its `Question_id`.
        id: String,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// A prompt or an example is too long, and the settings do not allow to leave it out.
    #[error("{item} has {tokens} tokens, more than {limit}{}", also(*others))]
    TooLong {
        /// What is too long, such as question `7`.
        item: String,
        /// Its length.
        tokens: usize,
        /// How many others are too long.
        others: usize,
        /// The limit.
        limit: LengthLimit,
    },
    /// There is not enough training data.
    #[error("{left} of {given} {what} are within the length limit, but a step needs {needed}")]
    TooFew {
        /// The kind of data: `questions`, `examples` or `documents`.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// How many fit the length limit.
        left: usize,
        /// How many one step needs.
        needed: usize,
    },
    /// Settings that contradict each other.
    #[error("{}", listed(.0))]
    Settings(Vec<Fault>),
    /// A checkpoint is damaged, or of another kind.
    #[error("the checkpoint `{}` cannot be used: {what}", path.display())]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Something is in the way of a file or folder of a run.
    #[error("`{}` is in the way: it must be a {kind}; move it, or choose another `output`", path.display())]
    InTheWay {
        /// Its path.
        path: PathBuf,
        /// What the run writes there.
        kind: EntryKind,
    },
    /// The run's folder is no longer the one that the run started in.
    #[error("`{}` was removed or replaced during the run; it stops, so that no other run is damaged", run.display())]
    RunMoved {
        /// The run's folder.
        run: PathBuf,
    },
    /// The output folder already contains a run.
    #[error("`{}` contains checkpoints of an earlier run", path.display())]
    OutputExists {
        /// The output folder.
        path: PathBuf,
    },
    /// A resumed run was given another model than the one it started from.
    #[error("the model `{model}` is not the one that the run in `{}` started from", run.display())]
    ModelMismatch {
        /// The model given.
        model: String,
        /// The run's folder.
        run: PathBuf,
    },
    /// The folder to resume from contains no checkpoint.
    #[error("`{}` contains no checkpoint to resume from", path.display())]
    NothingToResume {
        /// The folder.
        path: PathBuf,
    },
    /// All checkpoints of a run are damaged.
    #[error("no intact checkpoint in `{}`: {}", run.display(), each(damaged))]
    NoIntactCheckpoint {
        /// The run's folder.
        run: PathBuf,
        /// The damage of each checkpoint.
        damaged: Vec<DamagedCheckpoint>,
    },
    /// The stored optimizer state does not match the model.
    #[error("the optimizer state in `{}` cannot be used: {what}", path.display())]
    Moments {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// `metric_for_best_model` is not a metric of the evaluation.
    #[error("unknown metric `{metric}` in `metric_for_best_model`; available: {}", known.join(", "))]
    UnknownMetric {
        /// The metric.
        metric: String,
        /// The metrics that an evaluation reports.
        known: Vec<String>,
    },
    /// Too many consecutive steps had non-finite losses or gradients, or the model itself is not finite.
    #[error("{} skipped ({diagnosis})", steps_were(*steps))]
    NotFinite {
        /// How many steps.
        steps: u64,
        /// The known causes.
        diagnosis: Box<Diagnosis>,
    },
    /// The trained model is not finite, so it is not saved.
    #[error("{found}; nothing was saved; {}", last_good(checkpoint.as_deref()))]
    NonFinitePolicy {
        /// What is not finite.
        found: NonFiniteModel,
        /// The last checkpoint, whose model is finite.
        checkpoint: Option<PathBuf>,
    },
    /// The model that training starts from is not finite.
    #[error("{found}; it cannot be trained")]
    NonFiniteBase {
        /// What is not finite.
        found: NonFiniteModel,
    },
    /// The model of the checkpoint to resume from is not finite.
    #[error("{found}; the checkpoint `{}` cannot be used", path.display())]
    NonFiniteCheckpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is not finite.
        found: NonFiniteModel,
    },
    /// Scores of a reward are too large for the statistics of their group or batch.
    #[error(
        "the reward `{reward}` gave {score:e} to a completion of question `{question}` in step {step}, so that the \
         mean or the standard deviation of the rewards is not finite; batch dumped to `{}`", dump.display()
    )]
    RewardOverflow {
        /// The reward.
        reward: String,
        /// Its score of the largest magnitude.
        score: f64,
        /// The question of that score.
        question: String,
        /// The step, from 1.
        step: u64,
        /// Path of the batch dump, with all scores.
        dump: PathBuf,
    },
    /// The model returned something invalid.
    #[error("the model {what}")]
    Model {
        /// What it returned.
        what: String,
    },
    /// An error of the model, its tokenizer or its files.
    #[error(transparent)]
    Policy(Box<embodied_r_policy::Error>),
    /// An error of the rewards.
    #[error(transparent)]
    Rewards(Box<embodied_r_rewards::Error>),
    /// An error of the data.
    #[error(transparent)]
    Data(Box<embodied_r_data::Error>),
    /// An error of the optimizer's kernels.
    #[error(transparent)]
    Kernels(#[from] embodied_r_kernels::Error),
    /// An error of a tensor operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Errors of other crates are boxed to keep `Result` small.
macro_rules! boxed {
    ($($variant:ident: $error:ty),+ $(,)?) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })+
    };
}

boxed!(
    Policy: embodied_r_policy::Error,
    Rewards: embodied_r_rewards::Error,
    Data: embodied_r_data::Error,
    Media: embodied_r_media::Error,
);

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let failed = embodied_r_files::Error::io(action, path);
        move |source| Self::Io(failed(source))
    }

    /// An [`Error::Json`] about `path`, for `map_err`.
    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| Self::Json { path, source }
    }
}

fn also(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => "; another one is too long".into(),
        others => format!("; {others} others are too long"),
    }
}

fn steps_were(steps: u64) -> String {
    match steps {
        1 => "1 step was".into(),
        steps => format!("{steps} consecutive steps were"),
    }
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn each(damaged: &[DamagedCheckpoint]) -> String {
    damaged.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

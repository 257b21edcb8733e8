//! Hints for errors of the trainers.

use embodied_r_grpo::Error;
use embodied_r_grpo::settings::Fault;

use crate::exit::{self, Usage};

/// Adds hints to errors that other arguments can fix.
pub(crate) fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::Settings(faults) => {
            Usage(faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")).into()
        }
        Error::TooLong { .. } => Usage(format!(
            "{error}; shorten it, or leave out what is too long with `truncation_strategy = \"delete\"`"
        ))
        .into(),
        Error::UnknownMetric { .. } => Usage(error.to_string()).into(),
        Error::OutputExists { .. } => exit::hint(
            error.to_string(),
            "`--resume` continues it; another `--output` starts a new run",
        ),
        Error::NothingToResume { .. } => exit::hint(
            error.to_string(),
            "give the directory of a run or one of its checkpoints, or remove `--resume`",
        ),
        Error::Checkpoint { .. } => exit::hint(
            error.to_string(),
            "`--resume` with the run's directory resumes from its last intact checkpoint",
        ),
        Error::NoIntactCheckpoint { .. } => exit::hint(
            error.to_string(),
            "move the checkpoints away to start a new run, or restore one from a backup",
        ),
        Error::NotFinite { .. } => exit::hint(
            error.to_string(),
            "lower `learning_rate` or `max_grad_norm`, or examine the batch with `embodied-r \
             inspect loss`; `--resume` continues from the last good state",
        ),
        Error::NonFinitePolicy { .. } => exit::hint(
            error.to_string(),
            "lower `learning_rate` or `max_grad_norm`; `--resume` continues from the last good state",
        ),
        Error::RewardOverflow { .. } => exit::hint(
            error.to_string(),
            "return scores of a moderate size, or null for no score; `--resume` continues from the last checkpoint",
        ),
        Error::NonFiniteCheckpoint { .. } => exit::hint(
            error.to_string(),
            "delete it; `--resume` then continues from the previous checkpoint",
        ),
        Error::NonFiniteBase { .. } => exit::hint(
            error.to_string(),
            "start from an intact model, or from an earlier checkpoint of the run that wrote it",
        ),
        Error::ModelMismatch { .. } => exit::hint(
            error.to_string(),
            "give the model that it started from, or another output directory for a new run",
        ),
        Error::TooFew { what: "questions", .. } => exit::hint(
            error.to_string(),
            "lower `generation_batch_size`, or raise `max_prompt_length` if questions were dropped",
        ),
        Error::TooFew { .. } => exit::hint(
            error.to_string(),
            "lower `train_batch_size`, or raise `max_length` if conversations were dropped",
        ),
        Error::Question { .. } => exit::hint(
            error.to_string(),
            "train on the questions that `embodied-r perceive` writes, with their answers",
        ),
        _ => error.into(),
    }
}

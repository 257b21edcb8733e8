//! The crate's error type.

use std::path::PathBuf;

use crate::category::category_name;

/// Errors of reading and scoring predictions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The prediction file cannot be read, or a field of a record is invalid.
    #[error(transparent)]
    Records(#[from] embodied_r_rewards::Error),
    /// The questions of a benchmark cannot be read.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A folder has none of a benchmark's annotation files.
    #[error("`{}` has no annotation file of the benchmark: `{}`", folder.display(), needed.join("` or `"))]
    NoAnnotations {
        /// The folder.
        folder: PathBuf,
        /// The patterns of the files.
        needed: &'static [&'static str],
    },
    /// A table of predictions cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        source: csv::Error,
    },
    /// Predictions in a spreadsheet.
    #[error(
        "`{}` is a spreadsheet, which is not read; save it as tab-separated text (`.tsv`), for example with \
         `pandas.read_excel(…).to_csv(…, sep='\\t', index=False)`",
        path.display()
    )]
    Spreadsheet {
        /// The file.
        path: PathBuf,
    },
    /// Records that name only their questions, without a question set.
    #[error(
        "the records of predictions have no `category` and `solution`: give the benchmark's questions with `--data`"
    )]
    UnknownQuestions,
    /// A record names a row that the question set does not have.
    #[error(
        "the predictions are of row {row}, but the question set has {questions} questions, from row 0"
    )]
    NoSuchRow {
        /// The row, from 0.
        row: usize,
        /// Number of questions.
        questions: usize,
    },
    /// Two records are of one question, so its answer would count twice.
    #[error(
        "question `{id}`{} is in {first} and again in {second}: a question counts once",
        video.as_deref().map(|video| format!(" about `{video}`")).unwrap_or_default()
    )]
    Duplicate {
        /// The question.
        id: String,
        /// The file name of its video, if known.
        video: Option<String>,
        /// Location of the first record.
        first: String,
        /// Location of the repeated record.
        second: String,
    },
    /// A record without a video whose identifier several questions of the set have.
    #[error(
        "question `{id}` is about several videos in the question set: the record needs a `video_id`"
    )]
    AmbiguousQuestion {
        /// The question.
        id: String,
    },
    /// The predictions are of another question set.
    #[error("none of the {records} records is of a question in the question set")]
    OtherQuestionSet {
        /// Number of records.
        records: usize,
    },
    /// A solution is of the wrong kind for its category.
    #[error("the solution `{solution}` of question `{id}` in `{category}` is not {expected}")]
    Solution {
        /// The question.
        id: String,
        /// Its category.
        category: String,
        /// The invalid solution.
        solution: String,
        /// The expected kind.
        expected: &'static str,
    },
    /// The captions cannot be separated from the question, so a blind baseline is impossible.
    #[error(
        "question `{id}` contains captions but neither `original_question` nor a final `Question:`, \
         so a blind model would see the captions"
    )]
    NotBlind {
        /// The question.
        id: String,
    },
    /// A question has no reference answer to score a blind model with.
    #[error("question `{id}` has {found}; the blind baseline needs an option letter")]
    NoSolution {
        /// The question.
        id: String,
        /// What was found instead.
        found: String,
    },
    /// No record has a prediction, often because a question file was given.
    #[error("none of the {records} records has a `content` or a `prediction`")]
    NoPredictions {
        /// Number of records.
        records: usize,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] embodied_r_files::Error),
    /// pass@k is undefined for more than all samples.
    #[error("pass@{k} needs at least {k} samples per question, not {n}")]
    TooFewSamples {
        /// Number of samples.
        n: usize,
        /// The k of pass@k.
        k: usize,
    },
    /// More samples are correct than there are.
    #[error("{c} of {n} samples cannot be correct")]
    CorrectSamples {
        /// Number of samples.
        n: usize,
        /// Number of correct samples.
        c: usize,
    },
    /// Questions have different numbers of samples.
    #[error("question `{id}` has {found} samples, the first question has {expected}")]
    SampleCount {
        /// The question.
        id: String,
        /// Number of its samples.
        found: usize,
        /// Number of samples of the first question.
        expected: usize,
    },
    /// A standard deviation over folds needs at least two.
    #[error("{found} folds are too few for a cross-validation, which needs at least 2")]
    TooFewFolds {
        /// Number of folds.
        found: usize,
    },
    /// Folds whose scores have no common mean.
    #[error("the {what} of fold {fold} is {other}, but that of fold 0 is {first}")]
    FoldMismatch {
        /// What differs.
        what: &'static str,
        /// Its value in the first fold.
        first: String,
        /// The first fold with another value, from 0.
        fold: usize,
        /// That value.
        other: String,
    },
    /// The protocol scores none of the records' categories.
    #[error("`{protocol}` scores none of the records' categories: {}", listed(found))]
    NothingToScore {
        /// The protocol's name.
        protocol: &'static str,
        /// The categories of the records.
        found: Vec<String>,
    },
}

fn listed(categories: &[String]) -> String {
    categories.iter().map(|name| category_name(name)).collect::<Vec<_>>().join(", ")
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

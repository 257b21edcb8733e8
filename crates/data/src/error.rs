//! The crate's error.

use std::path::PathBuf;

/// What can go wrong while data is read or written.
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
    /// A record of a file of questions is not an object.
    #[error("record {record} of `{}` {fault}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The record, counted from 1.
        record: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// A field of a record cannot be used.
    #[error("`{field}` in record {record} of `{}`: {fault}", path.display())]
    RecordField {
        /// The file.
        path: PathBuf,
        /// The record, counted from 1.
        record: usize,
        /// The field.
        field: String,
        /// What is wrong with it.
        fault: String,
    },
    /// EgoSchema's questions come without their answers.
    #[error(
        "`{}` holds no answers; put `subset_answers.json` beside it, or name that file with \
         `--answers`",
        path.display()
    )]
    NoAnswers {
        /// The file of the questions.
        path: PathBuf,
    },
    /// An entry of a file of answers cannot be used.
    #[error("the answer to `{id}` in `{}` {fault}", path.display())]
    Answer {
        /// The file.
        path: PathBuf,
        /// The question.
        id: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A file of answers is about other questions.
    #[error("`{}` answers none of the questions in `{}`", answers.display(), path.display())]
    OtherAnswers {
        /// The file of the questions.
        path: PathBuf,
        /// The file of the answers.
        answers: PathBuf,
    },
    /// Answers are given for questions that have their own.
    #[error(
        "`{}` has answers of its own; `--answers` belongs to EgoSchema's questions",
        path.display()
    )]
    AnswersUnused {
        /// The file of the questions.
        path: PathBuf,
    },
    /// A folder holds no questions that are known by their name.
    #[error(
        "`{}` is a folder without `questions.json` (EgoSchema) and `egocentric_navigation.json` \
         (MVBench); name the file",
        path.display()
    )]
    NoQuestions {
        /// The folder.
        path: PathBuf,
    },
    /// A folder holds the questions of several benchmarks.
    #[error("`{}` and `{}` are both files of questions; name one", first.display(), second.display())]
    SeveralQuestionFiles {
        /// One of them.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// A scene file holds a figure that cannot be.
    #[error("`{field}` in the scene file `{}` should be {wanted}", path.display())]
    Scene {
        /// The file.
        path: PathBuf,
        /// The field at fault.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A parquet file cannot be read.
    #[error("`{}` is not a readable parquet file: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        source: polars::error::PolarsError,
    },
    /// A parquet file cannot be written.
    #[error("cannot write the table `{}`: {source}", path.display())]
    ParquetWrite {
        /// The file.
        path: PathBuf,
        /// The writer's reason.
        source: polars::error::PolarsError,
    },
    /// A table lacks a column.
    #[error("column `{column}` is missing from `{}`, whose columns are: {found}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns that are there.
        found: String,
    },
    /// A column holds another type than it should.
    #[error("column `{column}` of `{}` should hold {wanted}, but holds {found}", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// What it should hold.
        wanted: &'static str,
        /// The type that it holds, in polars' words.
        found: String,
    },
    /// A column that must be filled lacks a value.
    #[error("column `{column}` of `{}` has no value in row {row}", path.display())]
    AbsentValue {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The row, counted from 0.
        row: usize,
    },
    /// A row holds a value that cannot be used.
    #[error("`{found}` in row {row}, column `{column}`, of `{}` should be {wanted}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The row, counted from 0.
        row: usize,
        /// The value.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The input folder holds no benchmark.
    #[error(
        "`{}` holds neither `VSI-Bench/test-00000-of-00001.parquet` nor \
         `UrbanVideo-Bench/MCQ.parquet`",
        path.display()
    )]
    NoBenchmark {
        /// The input folder.
        path: PathBuf,
    },
    /// An archive cannot be read.
    #[error("cannot read the archive `{}`: {source}", path.display())]
    Archive {
        /// The zip file.
        path: PathBuf,
        /// The reader's reason.
        source: zip::result::ZipError,
    },
    /// An archive's entry would be unpacked outside its folder, or through a link.
    #[error(
        "entry `{entry}` of the archive `{}` leaves its folder; the archive is not trusted, \
         nothing was unpacked",
        path.display()
    )]
    HostileEntry {
        /// The zip file.
        path: PathBuf,
        /// The entry's name.
        entry: String,
    },
    /// Both benchmarks name the same video.
    #[error("both benchmarks name the video `{video_id}`; preprocess them into two folders")]
    SharedVideo {
        /// File name of the video.
        video_id: String,
    },
    /// A fold that does not exist.
    #[error(
        "there is no fold {fold} of {folds}; folds are counted from 0 and there are at least 2"
    )]
    Fold {
        /// The fold asked for.
        fold: usize,
        /// The number of folds.
        folds: usize,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

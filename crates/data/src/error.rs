//! The crate's error type.

use std::path::PathBuf;

use crate::question_key::QuestionKey;

/// Errors of reading and writing data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A file is not JSON or has the wrong structure.
    #[error("cannot parse `{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// A record of a question file is not an object.
    #[error("record {record} of `{}` {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The 1-based index of the record.
        record: usize,
        /// What is wrong.
        reason: String,
    },
    /// A field of a record is invalid.
    #[error("`{field}` in record {record} of `{}`: {reason}", path.display())]
    RecordField {
        /// The file.
        path: PathBuf,
        /// The 1-based index of the record.
        record: usize,
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// A question occurs twice.
    #[error(
        "{second} repeats {first}: {key}; remove one of them, or give it another `Question_id`"
    )]
    DuplicateQuestion {
        /// Where the first one is, such as `record 1`.
        first: String,
        /// Where the one is that repeats it, such as ``record 3 of `data.json` ``.
        second: String,
        /// Their video and id.
        key: QuestionKey,
    },
    /// The answer file of EgoSchema's questions is missing.
    #[error(
        "`{}` has no answers; put `subset_answers.json` next to it, or pass that file with \
         `--answers`",
        path.display()
    )]
    MissingAnswers {
        /// The question file.
        path: PathBuf,
    },
    /// An entry of an answer file is invalid.
    #[error("the answer to `{id}` in `{}` {reason}", path.display())]
    Answer {
        /// The file.
        path: PathBuf,
        /// The question's id.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// An answer file has no answer to any of the questions.
    #[error("`{}` answers none of the questions in `{}`", answers.display(), path.display())]
    UnrelatedAnswers {
        /// The question file.
        path: PathBuf,
        /// The answer file.
        answers: PathBuf,
    },
    /// An answer file was passed for questions that include their answers.
    #[error(
        "`{}` includes its answers; `--answers` is for EgoSchema's questions only",
        path.display()
    )]
    AnswersUnused {
        /// The question file.
        path: PathBuf,
    },
    /// A question file has no questions.
    #[error("`{}` has no questions", path.display())]
    EmptyQuestionFile {
        /// The file.
        path: PathBuf,
    },
    /// `--columns` is not a list of renames.
    #[error("`--columns {text}`: {reason}")]
    Columns {
        /// The renames.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The first record of a question file has no column of a name to rename.
    #[error("`{}` has no column `{column}`; it has: `{found}`", path.display())]
    NoSuchColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The columns of the first record.
        found: String,
    },
    /// The first record of a question file has the fields of no format.
    #[error("`{}` is in no known format: a record needs {needed}; it has: `{found}`", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The columns of the formats that are read.
        needed: &'static str,
        /// The columns of the first record.
        found: String,
    },
    /// A question file has no records, such as a CSV file.
    #[error(
        "`{}` is not a question file: it starts with `{start}`; a JSON list of records, JSON lines or a parquet table \
         is needed",
        path.display()
    )]
    NotRecords {
        /// The file.
        path: PathBuf,
        /// Its first line.
        start: String,
    },
    /// A folder was given for a question file.
    #[error("`{}` is a directory; pass a question file in it", path.display())]
    QuestionFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A folder has no data files.
    #[error("`{}` has no parquet, JSON lines or JSON files; pass the files themselves", path.display())]
    NoDataFiles {
        /// The folder.
        path: PathBuf,
    },
    /// The data files of a folder are not shards of one table.
    #[error(
        "`{}` has files of different {what}, such as `{first}` and `{other}`; pass the files to read, or a pattern such \
         as `'{}'`",
        path.display(), pattern.display()
    )]
    DifferentFiles {
        /// The folder.
        path: PathBuf,
        /// What differs: `splits` or `kinds`.
        what: &'static str,
        /// The name of one file.
        first: String,
        /// The name of another.
        other: String,
        /// A pattern that files of one kind or split match.
        pattern: PathBuf,
    },
    /// A pattern names no files.
    #[error("`{pattern}` {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// A dataset on the Hugging Face Hub is given as data.
    #[error(
        "`{id}` is no file; download a dataset of the Hugging Face Hub first: `hf download {id} --repo-type dataset \
         --local-dir DIR`, then pass its files, such as `'DIR/**/train*.parquet'`"
    )]
    HubDataset {
        /// Its ID.
        id: String,
    },
    /// Two question files to be read together have different formats.
    #[error(
        "`{}` and `{}` have different formats; give them to separate commands",
        first.display(), second.display()
    )]
    DifferentFormats {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A folder has question files of several benchmarks.
    #[error("`{}` and `{}` are both question files; pass one of them", first.display(), second.display())]
    SeveralQuestionFiles {
        /// The first file.
        first: PathBuf,
        /// The second file.
        second: PathBuf,
    },
    /// A scene file has an invalid value.
    #[error("`{field}` in the scene file `{}` must be {expected}", path.display())]
    Scene {
        /// The file.
        path: PathBuf,
        /// The invalid field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A parquet file cannot be read.
    #[error("cannot read the parquet file `{}`: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's error.
        source: polars::error::PolarsError,
    },
    /// A parquet file cannot be written.
    #[error("cannot write the table `{}`: {source}", path.display())]
    ParquetWrite {
        /// The file.
        path: PathBuf,
        /// The writer's error.
        source: polars::error::PolarsError,
    },
    /// A table lacks a column.
    #[error("column `{column}` is missing from `{}`; available columns: {found}", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: String,
        /// The available columns.
        found: String,
    },
    /// A column has the wrong type.
    #[error("column `{column}` of `{}` must contain {expected}, but has type {found}", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The expected type, in words.
        expected: &'static str,
        /// The actual polars data type.
        found: String,
    },
    /// A required column has a null.
    #[error("column `{column}` of `{}` is null in row {row}", path.display())]
    NullValue {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The 0-based row index.
        row: usize,
    },
    /// A row has too many or too few values.
    #[error("column `{column}` of `{}` has {found} values in row {row}, not {expected}", path.display())]
    RowWidth {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The 0-based row index.
        row: usize,
        /// The number of values.
        found: usize,
        /// The expected number.
        expected: usize,
    },
    /// A row has an invalid value.
    #[error("`{found}` in row {row}, column `{column}`, of `{}` must be {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The 0-based row index.
        row: usize,
        /// The value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The input folder contains no benchmark.
    #[error(
        "`{}` contains neither `VSI-Bench/test-00000-of-00001.parquet` nor \
         `UrbanVideo-Bench/MCQ.parquet`",
        path.display()
    )]
    NoBenchmark {
        /// The input folder.
        path: PathBuf,
    },
    /// No question of the benchmarks is kept.
    #[error("the benchmarks in `{}` have no question of the requested categories", path.display())]
    NothingKept {
        /// The input folder.
        path: PathBuf,
    },
    /// An archive cannot be read.
    #[error("cannot read the archive `{}`: {source}", path.display())]
    Archive {
        /// The zip file.
        path: PathBuf,
        /// The zip reader's error.
        source: zip::result::ZipError,
    },
    /// An archive entry would be extracted outside the target folder (path traversal) or is a symbolic
    /// link.
    #[error(
        "entry `{entry}` of the archive `{}` is a symbolic link or points outside the target directory; \
         nothing was extracted",
        path.display()
    )]
    UnsafeEntry {
        /// The zip file.
        path: PathBuf,
        /// The entry's name.
        entry: String,
    },
    /// Entries of an archive would take implausibly more space than the archive: a zip bomb.
    #[error(
        "entry `{entry}` of the archive `{}` would decompress {compressed} bytes to {size}, which no video \
         does; nothing was extracted",
        path.display()
    )]
    ArchiveBomb {
        /// The zip file.
        path: PathBuf,
        /// The entry's name; `*` for all entries together.
        entry: String,
        /// The size when extracted, in bytes.
        size: u64,
        /// The size in the archive, in bytes.
        compressed: u64,
    },
    /// The videos do not fit on the file system.
    #[error(
        "the videos need {:.1} GB, but the file system of `{}` has {:.1} GB free",
        *needed as f64 / 1e9, path.display(), *free as f64 / 1e9
    )]
    NoSpace {
        /// The folder of the videos.
        path: PathBuf,
        /// The bytes to write.
        needed: u64,
        /// The free bytes.
        free: u64,
    },
    /// A symbolic link of a benchmark's folder leads out of it.
    #[error(
        "`{}` is a link to `{}`, outside `{}`: put the file itself there, or make that directory the link",
        path.display(), target.display(), folder.display()
    )]
    LinkLeaves {
        /// The link.
        path: PathBuf,
        /// What it links to.
        target: PathBuf,
        /// The benchmark's folder.
        folder: PathBuf,
    },
    /// Both benchmarks have a video of the same name.
    #[error("both benchmarks have a video `{video_id}`; preprocess them into separate directories")]
    SharedVideo {
        /// File name of the video.
        video_id: String,
    },
    /// An invalid fold index or number of folds.
    #[error("invalid fold {fold} of {folds}; folds count from 0 and at least 2 are needed")]
    Fold {
        /// The requested fold.
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
        let failed = embodied_r_files::Error::io(action, path);
        move |source| Self::Io(failed(source))
    }
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! The crate's error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Errors of key-frame selection and captioning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A video could not be decoded.
    #[error(transparent)]
    Video(#[from] embodied_r_video::Error),
    /// An image could not be decoded or encoded.
    #[error("cannot {action} the image `{}`: {source}", path.display())]
    Image {
        /// The failed operation, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The codec's error.
        source: image::ImageError,
    },
    /// The key frames of a video could not be selected.
    #[error(transparent)]
    KeyFrames(embodied_r_keyframes::Error),
    /// A data file, a scene file or an output cannot be read or written.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// The captioning model's server returned no completion.
    #[error(transparent)]
    Chat(#[from] embodied_r_openai::Error),
    /// The captioning model returned an empty completion.
    #[error(
        "the completion for frame {index} is empty (finish reason `{}`)",
        reason.as_deref().unwrap_or("no reason")
    )]
    EmptyCompletion {
        /// The frame's index in the video.
        index: usize,
        /// The server's finish reason.
        reason: Option<String>,
    },
    /// The captioning model, or a content filter, refuses to describe a frame.
    #[error("the model refuses to describe frame {index}: {reason}")]
    ModelRefusal {
        /// The frame's index in the video.
        index: usize,
        /// The message of the model or the filter.
        reason: String,
    },
    /// The next request might exceed the cost limit.
    #[error(
        "spent {spent:.4}, and the next request might exceed the limit of {max_cost}: raise `--max-cost`"
    )]
    CostLimit {
        /// The cost of all runs.
        spent: f64,
        /// The limit.
        max_cost: f64,
    },
    /// The run was interrupted before a request was sent.
    #[error("interrupted before the request was sent")]
    Interrupted,
    /// A cost limit is set, but the server does not report usage.
    #[error(
        "the server reports no token usage (`usage`), which `--max-cost` requires: omit `--max-cost`"
    )]
    NoUsage,
    /// Too many consecutive questions failed, so that the run is aborted.
    #[error("{questions} questions in a row got no captions, last error: {last}")]
    TooManyFailures {
        /// Consecutive failures.
        questions: usize,
        /// The last error.
        last: Box<Error>,
    },
    /// An error shared by all questions of a video.
    #[error(transparent)]
    Shared(Arc<Error>),
    /// A blocking task panicked or was cancelled.
    #[error("the task of a video failed: {0}")]
    TaskFailed(#[source] tokio::task::JoinError),
    /// An error of the local model's files.
    #[error(transparent)]
    Policy(Box<embodied_r_policy::Error>),
    /// An image cannot be read.
    #[error(transparent)]
    Vision(Box<embodied_r_vision::Error>),
    /// An error of the local model's engine.
    #[error(transparent)]
    Inference(Box<embodied_r_inference::Error>),
    /// A question names no video.
    #[error("question `{id}` names no video in `video_id` or `videos`")]
    NoVideoName {
        /// The question's identifier.
        id: String,
    },
    /// A question's video does not exist.
    #[error(
        "the video `{video}` is not in `{}`; pass the videos' directory (`--video-dir`)",
        folder.display()
    )]
    VideoNotFound {
        /// The video's name or path in the question.
        video: String,
        /// The searched folder.
        folder: PathBuf,
    },
    /// No annotations cover a question's video.
    #[error(
        "no annotations for scene `{scene}` in `{}`: it needs `<video name>.json`, or a \
         `*meta_info*.json` that holds the scene", folder.display()
    )]
    SceneNotFound {
        /// The scene's name, or the video's.
        scene: String,
        /// The folder of the annotations.
        folder: PathBuf,
    },
    /// The annotations cannot support the questions of a category.
    #[error("the annotations of scene `{scene}` cannot support `{category}`: {reason}")]
    UnsupportedCategory {
        /// The scene's name.
        scene: String,
        /// The question's category.
        category: String,
        /// What the annotations lack.
        reason: &'static str,
    },
    /// A scene file has fewer camera poses than its video has frames.
    #[error(
        "`{}` has {poses} camera poses, but the video has a frame {index}: the scene file \
         does not match the video", path.display()
    )]
    SceneTooShort {
        /// The scene file.
        path: PathBuf,
        /// The frame's index.
        index: usize,
        /// The number of poses.
        poses: usize,
    },
    /// VSI-Bench's annotations do not have the expected form.
    #[error("`{}` does not map scenes to `object_bbox`: {source}", path.display())]
    MetaInfo {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// Two data files have the same output path.
    #[error("`{}` and `{}` have the same file name, so their outputs would overwrite each other", first.display(), second.display())]
    DuplicateOutput {
        /// The first data file.
        first: PathBuf,
        /// The second one.
        second: PathBuf,
    },
    /// The output would overwrite the data file.
    #[error("the output would overwrite `{}`: choose another directory (`--output`)", path.display())]
    WouldOverwrite {
        /// The data file.
        path: PathBuf,
    },
    /// A data file's questions already contain captions.
    #[error("question `{id}` of `{}` already contains captions: pass the original data file", path.display())]
    AlreadyCaptioned {
        /// The data file.
        path: PathBuf,
        /// The question's identifier.
        id: String,
    },
    /// Another run writes to the same log.
    #[error("another run is writing `{}`", path.display())]
    LogInUse {
        /// The caption log.
        path: PathBuf,
    },
    /// The log's captions were made with other settings.
    #[error(
        "`{}` line {line} was generated with different settings ({difference}): use the original settings, \
         choose another directory (`--output`), or caption again (`--redo-changed`)", path.display()
    )]
    SettingsChanged {
        /// The caption log.
        path: PathBuf,
        /// The first such line, from 1.
        line: usize,
        /// What differs.
        difference: String,
    },
    /// A folder is not a shard's output folder.
    #[error("`{}` is not a shard's directory: its name must have the form `shard-1-of-8`", folder.display())]
    NotAShard {
        /// The folder.
        folder: PathBuf,
    },
    /// A shard, or one of its files, is missing.
    #[error("`{}` is missing: copy the outputs of all shards here first", folder.display())]
    ShardMissing {
        /// The folder or the file.
        folder: PathBuf,
    },
    /// Two folders are of the same shard, or of different shard counts.
    #[error(
        "`{}` and `{}` overlap: each shard must exist once, and all with the same count",
        first.display(), second.display()
    )]
    ShardsOverlap {
        /// The first folder.
        first: PathBuf,
        /// The second one.
        second: PathBuf,
    },
    /// Shards were made with different settings.
    #[error("`{}` was generated with different settings than the previous shards ({difference})", path.display())]
    ShardSettings {
        /// The shard's log.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Two shards have captions for the same question.
    #[error(
        "question `{id}` of `{}` has captions in `{}` and in `{}`: run all shards with the same data files",
        path.display(), first.display(), second.display()
    )]
    CaptionedTwice {
        /// The question's identifier.
        id: String,
        /// The data file.
        path: PathBuf,
        /// The first shard's folder.
        first: PathBuf,
        /// The second one's.
        second: PathBuf,
    },
    /// A question has a result in no shard.
    #[error(
        "{count} questions of `{}` are in no shard ({ids}): complete `--shard {shard}`, with the \
         same data files as the others", path.display()
    )]
    NotCaptioned {
        /// The data file.
        path: PathBuf,
        /// Their number.
        count: usize,
        /// The identifiers of the first ones.
        ids: String,
        /// The shard of the first one.
        shard: String,
    },
}

impl From<embodied_r_keyframes::Error> for Error {
    fn from(error: embodied_r_keyframes::Error) -> Self {
        match error {
            embodied_r_keyframes::Error::Video(error) => Self::Video(error),
            error => Self::KeyFrames(error),
        }
    }
}

impl From<embodied_r_policy::Error> for Error {
    fn from(error: embodied_r_policy::Error) -> Self {
        Self::Policy(Box::new(error))
    }
}

impl From<embodied_r_inference::Error> for Error {
    fn from(error: embodied_r_inference::Error) -> Self {
        Self::Inference(Box::new(error))
    }
}

impl From<embodied_r_vision::Error> for Error {
    fn from(error: embodied_r_vision::Error) -> Self {
        Self::Vision(Box::new(error))
    }
}

impl Error {
    /// Whether the whole run must be aborted, not only the current question.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::Video(embodied_r_video::Error::FfmpegMissing { .. }) | Self::NoUsage => true,
            Self::Inference(error) => error.ends_engine(),
            // Paid completions could not be saved.
            Self::Io(file) if file.action == "write" => true,
            Self::Chat(error) => error.fails_every_request(),
            Self::Shared(shared) => shared.is_fatal(),
            _ => false,
        }
    }

    /// Whether the cost limit is reached: nothing failed, and the run ends normally.
    pub(crate) fn is_cost_limit(&self) -> bool {
        match self {
            Self::CostLimit { .. } => true,
            Self::Shared(shared) => shared.is_cost_limit(),
            _ => false,
        }
    }

    /// Whether the model refused; a retry would not help.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::ModelRefusal { .. } => true,
            Self::Shared(shared) => shared.is_refusal(),
            _ => false,
        }
    }

    /// Whether the question's video does not exist.
    pub(crate) fn is_missing_video(&self) -> bool {
        match self {
            Self::VideoNotFound { .. } => true,
            Self::Shared(shared) => shared.is_missing_video(),
            _ => false,
        }
    }

    /// Whether no server returned a completion, so that the next question may fail too: none is
    /// reachable, or none accepts images.
    pub(crate) fn is_request_failure(&self) -> bool {
        match self {
            Self::Chat(_) => true,
            Self::Shared(shared) => shared.is_request_failure(),
            _ => false,
        }
    }

    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let failed = embodied_r_files::Error::io(action, path);
        move |source| Self::Io(failed(source))
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

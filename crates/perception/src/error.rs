//! The crate's error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What can go wrong between a video and its text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write` …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// FFmpeg is not installed.
    #[error(
        "`{program}` is not installed, and videos are read through it: install FFmpeg \
         (`apt-get install ffmpeg`, `brew install ffmpeg`, or https://ffmpeg.org) so that \
         `{program}` is on the PATH"
    )]
    FfmpegMissing {
        /// The program that was not found: `ffmpeg` or `ffprobe`.
        program: &'static str,
    },
    /// FFmpeg is there but could not be started or read from.
    #[error("cannot run `{program}`: {source}")]
    FfmpegRun {
        /// The program: `ffmpeg` or `ffprobe`.
        program: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("`{}` is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else than a video.
    #[error("`{}` is not a video that FFmpeg can read: {reason}", path.display())]
    NotAVideo {
        /// The file.
        path: PathBuf,
        /// FFmpeg's reason, or what the file is instead.
        reason: String,
    },
    /// The file has tracks, but none of them is a video track.
    #[error("`{}` has no video track, only {tracks}", path.display())]
    NoVideoTrack {
        /// The file.
        path: PathBuf,
        /// What it has, such as `audio`.
        tracks: String,
    },
    /// The video breaks off, or is broken inside.
    #[error(
        "`{}` is truncated or damaged: {frames} of about {expected} frames could be decoded \
         ({reason})", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Frames that could be decoded.
        frames: usize,
        /// Frames that the container promises.
        expected: usize,
        /// FFmpeg's first complaint.
        reason: String,
    },
    /// No frame could be decoded, or FFmpeg gave up.
    #[error("cannot decode `{}`: {reason}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// FFmpeg's first complaint.
        reason: String,
    },
    /// A video took longer than it may.
    #[error(
        "`{}` takes longer to read than it may: leave it out, or see with `keyframes --time-limit` \
         whether it ends", path.display()
    )]
    TooSlow {
        /// The file.
        path: PathBuf,
    },
    /// A frame or a picture has more pixels than are decoded.
    #[error(
        "`{}` is {width}×{height}, and no more than {} pixels are decoded: scale it down",
        path.display(), crate::video::MOST_PIXELS
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Pixels across, by the file's header.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// A frame was asked for that the video does not have.
    #[error("`{}` has no frame {index}: its last one is before that", path.display())]
    NoSuchFrame {
        /// The file.
        path: PathBuf,
        /// The frame's index, from 0.
        index: usize,
    },
    /// A picture could not be read or written.
    #[error("cannot {action} the picture `{}`: {source}", path.display())]
    Picture {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        source: image::ImageError,
    },
    /// An option of the key-frame choice is outside its range.
    #[error("`{option}` is {given}: {wanted}")]
    KeyframeOption {
        /// The option's name.
        option: &'static str,
        /// Its value.
        given: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// A data file, a scene file or an output cannot be read or written.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// The captioning model gave no reply.
    #[error(transparent)]
    Chat(#[from] embodied_r_openai::Error),
    /// The captioning model replied with nothing.
    #[error(
        "the model's reply about frame {index} is empty (it ended with `{}`)",
        reason.as_deref().unwrap_or("no reason")
    )]
    EmptyReply {
        /// The frame's index in the video.
        index: usize,
        /// Why the reply ended, in the server's word.
        reason: Option<String>,
    },
    /// The captioning model, or a filter before it, refuses to tell what a frame shows.
    #[error("the model refuses to describe frame {index}: {why}")]
    ModelRefuses {
        /// The frame's index in the video.
        index: usize,
        /// The model's or the filter's own words.
        why: String,
    },
    /// The next request would cost more than is left.
    #[error(
        "{spent:.4} of {max_cost} are spent, and the next request would pass that (`--max-cost`)"
    )]
    Spent {
        /// What all runs have cost.
        spent: f64,
        /// The limit.
        max_cost: f64,
    },
    /// The run was interrupted before a request was sent.
    #[error("interrupted before the model was asked")]
    Interrupted,
    /// Costs are limited, but not known.
    #[error(
        "the server does not report tokens (`usage`), so no cost can be limited: leave out `--max-cost`"
    )]
    NoUsage,
    /// Nothing was captioned for so long that the run is stopped.
    #[error("{questions} questions in a row got no captions, the last one because: {last}")]
    Hopeless {
        /// How many.
        questions: usize,
        /// Why the last one failed.
        last: Box<Error>,
    },
    /// What failed for a video, told to each of its questions.
    #[error(transparent)]
    Shared(Arc<Error>),
    /// Work on a thread of its own did not come to its end.
    #[error("the work on a video stopped short: {0}")]
    Stopped(#[source] tokio::task::JoinError),
    /// The model in this process, its files or its tokenizer.
    #[error(transparent)]
    Policy(Box<embodied_r_policy::Error>),
    /// The vision of the model in this process.
    #[error(transparent)]
    Vision(Box<embodied_r_vision::Error>),
    /// The ranks of a model that is split cannot go on.
    #[error(transparent)]
    Ranks(Box<Error>),
    /// What the ranks of a split model are told cannot be written down or read.
    #[error("the ranks of the model do not understand each other, start all of one version: {0}")]
    Turn(#[source] postcard::Error),
    /// The operating system gives no thread.
    #[error("cannot start the thread that runs the model: {0}")]
    Thread(#[source] std::io::Error),
    /// The model's thread ended by itself.
    #[error("the model has stopped, look at what went wrong before")]
    EngineGone,
    /// A question does not say which video it is about.
    #[error("question `{id}` names no video in `video_id` or `videos`")]
    NamesNoVideo {
        /// The question's identifier.
        id: String,
    },
    /// A question's video is not there.
    #[error(
        "the video `{video}` is not in `{}`; name the folder of the videos (`--folder-path`)",
        folder.display()
    )]
    VideoMissing {
        /// The video's name or path as the question has it.
        video: String,
        /// The folder that was looked into.
        folder: PathBuf,
    },
    /// No annotations cover a question's video.
    #[error(
        "no annotations for scene `{scene}` in `{}`: it needs `<video name>.json`, or a \
         `*meta_info*.json` that holds the scene", folder.display()
    )]
    NoScene {
        /// The scene's name, or else the video's.
        scene: String,
        /// The folder of the annotations.
        folder: PathBuf,
    },
    /// Annotations that cannot support the questions of a category.
    #[error("the annotations of scene `{scene}` cannot support `{category}`: {reason}")]
    UnsupportedCategory {
        /// The scene's name.
        scene: String,
        /// The question's category.
        category: String,
        /// What the category needs.
        reason: &'static str,
    },
    /// A scene file knows of fewer frames than its video has.
    #[error(
        "`{}` has {poses} camera poses, but the video has a frame {index}: the two do not belong \
         together", path.display()
    )]
    SceneTooShort {
        /// The scene file.
        path: PathBuf,
        /// The frame's index.
        index: usize,
        /// How many poses there are.
        poses: usize,
    },
    /// VSI-Bench's annotations do not have the expected form.
    #[error("`{}` does not map scenes to `object_bbox`: {source}", path.display())]
    MetaInfo {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// Two data files would be written to the same place.
    #[error("`{}` and `{}` have the same name, and so would their outputs", first.display(), second.display())]
    SameName {
        /// The data file that was given first.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// The output would take the place of the data file.
    #[error("the output would overwrite `{}`: choose another folder (`--save-path`)", path.display())]
    WouldOverwrite {
        /// The data file.
        path: PathBuf,
    },
    /// A data file's questions are prompts with captions already.
    #[error("question `{id}` of `{}` holds captions already: give the file from before", path.display())]
    AlreadyPerceived {
        /// The data file.
        path: PathBuf,
        /// The question's identifier.
        id: String,
    },
    /// Another run writes to the same log.
    #[error("`{}` is being written by another run", path.display())]
    LogInUse {
        /// The log of captions.
        path: PathBuf,
    },
    /// The log holds captions that were made in another way.
    #[error(
        "`{}` line {line} was made with other settings ({difference}): give those again, choose \
         another folder (`--save-path`), or have them made anew (`--redo-changed`)", path.display()
    )]
    SettingsChanged {
        /// The log of captions.
        path: PathBuf,
        /// The first line of that kind, from 1.
        line: usize,
        /// What differs.
        difference: String,
    },
    /// A folder is not that of a shard.
    #[error("`{}` is not the folder of a shard: its name must be like `shard-1-of-8`", folder.display())]
    NoShard {
        /// The folder.
        folder: PathBuf,
    },
    /// A shard, or a part of it, is not there.
    #[error("`{}` is missing: bring the outputs of all shards together first", folder.display())]
    ShardMissing {
        /// The folder or the file.
        folder: PathBuf,
    },
    /// Two folders are of the same shard, or of shards of different counts.
    #[error(
        "`{}` and `{}` overlap: each shard must be there once, and all of one count",
        first.display(), second.display()
    )]
    ShardsOverlap {
        /// One folder.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// Shards were made with different settings.
    #[error("`{}` was made with other settings than the shards before it ({difference})", path.display())]
    ShardSettings {
        /// The shard's log.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Two shards have captions of the same question.
    #[error(
        "question `{id}` of `{}` has captions in `{}` and in `{}`: give all shards the same data files",
        path.display(), first.display(), second.display()
    )]
    CaptionedTwice {
        /// The question's identifier.
        id: String,
        /// The data file.
        path: PathBuf,
        /// One shard's folder.
        first: PathBuf,
        /// The other one's.
        second: PathBuf,
    },
    /// No shard has dealt with a question.
    #[error(
        "{count} questions of `{}` are in no shard ({ids}): run `--shard {shard}` to its end, with the \
         same data files as the others", path.display()
    )]
    NotCaptioned {
        /// The data file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first ones' identifiers.
        ids: String,
        /// The shard that the first one belongs to.
        shard: String,
    },
}

impl From<embodied_r_policy::Error> for Error {
    fn from(error: embodied_r_policy::Error) -> Self {
        Self::Policy(Box::new(error))
    }
}

impl From<embodied_r_vision::Error> for Error {
    fn from(error: embodied_r_vision::Error) -> Self {
        Self::Vision(Box::new(error))
    }
}

impl Error {
    /// Whether the whole run is pointless, and not only the question at hand.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::FfmpegMissing { .. } | Self::NoUsage | Self::EngineGone => true,
            Self::Ranks(_) => true,
            // What was paid for cannot be kept.
            Self::Io { action: "write", .. } => true,
            Self::Chat(error) => error.refuses_everyone(),
            Self::Shared(shared) => shared.is_fatal(),
            _ => false,
        }
    }

    /// Whether the money is spent: nothing failed, but the run ends in good order.
    pub(crate) fn is_spent(&self) -> bool {
        match self {
            Self::Spent { .. } => true,
            Self::Shared(shared) => shared.is_spent(),
            _ => false,
        }
    }

    /// Whether the model refused, which it would do again.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::ModelRefuses { .. } => true,
            Self::Shared(shared) => shared.is_refusal(),
            _ => false,
        }
    }

    /// Whether no server gave a reply, so that the next question may fare the same: none is there, or
    /// they take no pictures.
    pub(crate) fn is_without_reply(&self) -> bool {
        match self {
            Self::Chat(_) => true,
            Self::Shared(shared) => shared.is_without_reply(),
            _ => false,
        }
    }

    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::FfmpegMissing`] or [`Error::FfmpegRun`], for `map_err`.
    pub(crate) fn ffmpeg(program: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound => Self::FfmpegMissing { program },
            _ => Self::FfmpegRun { program, source },
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

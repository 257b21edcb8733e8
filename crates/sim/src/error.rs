//! The crate's error type.

use std::path::PathBuf;

use crate::question_template::Category;

/// Errors of rendering rooms and writing datasets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A dataset file could not be read or written.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// FFmpeg could not be started.
    #[error("cannot start `ffmpeg`: {source}; install FFmpeg with the encoder libx264")]
    FfmpegMissing {
        /// The operating system's error.
        source: std::io::Error,
    },
    /// FFmpeg failed.
    #[error("`ffmpeg` could not write `{}`: {message}", path.display())]
    Ffmpeg {
        /// The video.
        path: PathBuf,
        /// The last line of its standard error.
        message: String,
    },
    /// The folder contains rooms with different settings.
    #[error(
        "`{}` contains rooms generated with different settings ({found}); use an empty directory or the same settings",
        path.display()
    )]
    ConflictingRooms {
        /// The folder.
        path: PathBuf,
        /// The settings of the existing rooms.
        found: String,
    },
    /// A LeRobot data set could not be written.
    #[error(transparent)]
    Lerobot(#[from] embodied_r_lerobot::Error),
    /// The folder contains demonstrations with different settings.
    #[error(
        "`{}` contains demonstrations generated with different settings ({found}); use another directory or the same \
         settings",
        path.display()
    )]
    ConflictingDemonstrations {
        /// The folder.
        path: PathBuf,
        /// The settings of the existing demonstrations.
        found: String,
    },
    /// The folder contains files of other origin.
    #[error("`{}` is not empty; use a new or empty directory", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Another process is writing the folder.
    #[error("another process is writing `{}`; wait for it, or use another directory", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The settings of a data set are not as they are written.
    #[error("`{}` is not the settings of simulated demonstrations: {reason}; write them with `sim arm`", path.display())]
    ArmSettings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A task is named twice.
    #[error("the task `{task}` is named twice; name each once")]
    RepeatedTask {
        /// The task.
        task: crate::arm::Task,
    },
    /// Frames cannot have this size.
    #[error("the image size `{width}x{height}` is not possible; use even numbers from 32 to 1024")]
    ImageSize {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The request is empty.
    #[error("nothing to generate: `{field}` is 0 or empty")]
    EmptyRequest {
        /// The setting.
        field: &'static str,
    },
    /// Questions of this category need a video.
    #[error("a few frames do not answer questions of `{category}`; use {list}", list = crate::views::VIEW_CATEGORIES.map(Category::name).join(", "))]
    NoViews {
        /// The category.
        category: Category,
    },
    /// An archive of videos could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Zip {
        /// The archive.
        path: PathBuf,
        /// The zip writer's error.
        source: zip::result::ZipError,
    },
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

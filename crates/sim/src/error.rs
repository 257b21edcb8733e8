//! The crate's error.

use std::path::PathBuf;

/// What can go wrong while rooms are filmed and laid out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// FFmpeg could not be started.
    #[error("cannot start `ffmpeg`: {source}; install FFmpeg with the encoder libx264")]
    FfmpegMissing {
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// FFmpeg gave up.
    #[error("`ffmpeg` could not write `{}`: {message}", path.display())]
    Ffmpeg {
        /// The video.
        path: PathBuf,
        /// What it said last.
        message: String,
    },
    /// The folder holds rooms of other settings.
    #[error(
        "`{}` holds other rooms ({found}); choose an empty folder, or the settings they were made with",
        path.display()
    )]
    OtherRooms {
        /// The folder.
        path: PathBuf,
        /// The settings of the rooms that are there.
        found: String,
    },
    /// Nothing was asked for.
    #[error("nothing to make: `{field}` is 0 or empty")]
    Nothing {
        /// The setting.
        field: &'static str,
    },
    /// An archive of videos could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Zip {
        /// The archive.
        path: PathBuf,
        /// The archiver's reason.
        source: zip::result::ZipError,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

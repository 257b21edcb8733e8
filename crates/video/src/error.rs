//! The crate's error.

use std::path::{Path, PathBuf};

/// Errors of decoding videos.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// FFmpeg is not installed.
    #[error(
        "`{program}` is not installed, but required to decode videos: install FFmpeg \
         (`apt-get install ffmpeg`, `brew install ffmpeg`, or https://ffmpeg.org) so that \
         `{program}` is on the PATH"
    )]
    FfmpegMissing {
        /// The missing program: `ffmpeg` or `ffprobe`.
        program: &'static str,
    },
    /// FFmpeg could not be started or read from.
    #[error("cannot run `{program}`: {source}")]
    FfmpegRun {
        /// The program: `ffmpeg` or `ffprobe`.
        program: &'static str,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("`{}` is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a video.
    #[error("`{}` is not a video that FFmpeg can read: {reason}", path.display())]
    NotAVideo {
        /// The file.
        path: PathBuf,
        /// FFmpeg's error, or the file's actual kind.
        reason: String,
    },
    /// The file has tracks, but none of them is a video track.
    #[error("`{}` has no video track, only {tracks}", path.display())]
    NoVideoTrack {
        /// The file.
        path: PathBuf,
        /// The tracks it has, such as `audio`.
        tracks: String,
    },
    /// The video is truncated or corrupt.
    #[error(
        "`{}` is truncated or corrupt: {frames} of about {expected} frames could be decoded \
         ({reason})", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Decoded frames.
        frames: usize,
        /// Frames according to the container.
        expected: usize,
        /// FFmpeg's first error message.
        reason: String,
    },
    /// No frame could be decoded, or FFmpeg failed.
    #[error("cannot decode `{}`: {reason}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// FFmpeg's first error message.
        reason: String,
    },
    /// Decoding exceeded its time limit.
    #[error(
        "decoding `{}` exceeded its time limit: exclude the video, or try a longer \
         `keyframes --time-limit`", path.display()
    )]
    DecodeTimeout {
        /// The file.
        path: PathBuf,
    },
    /// Decoding was stopped by the user.
    #[error("decoding `{}` was interrupted", path.display())]
    DecodeInterrupted {
        /// The file.
        path: PathBuf,
    },
    /// A frame or an image exceeds the pixel limit.
    #[error(
        "`{}` is {width}×{height}, above the limit of {} pixels: scale it down",
        path.display(), crate::MAX_PIXELS
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Width in pixels, according to the file's header.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A requested frame is beyond the end of the video.
    #[error("`{}` has no frame {index}: the video ends before it", path.display())]
    NoSuchFrame {
        /// The file.
        path: PathBuf,
        /// The frame's index, from 0.
        index: usize,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let failed = embodied_r_files::Error::io(action, path);
        move |source| Self::Io(failed(source))
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

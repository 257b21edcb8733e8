//! The crate's error.

use std::path::PathBuf;

use embodied_r_data::RecordPlace;

use crate::skipped::located;

/// Errors of reading images and videos, and of their embeddings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A video could not be decoded.
    #[error(transparent)]
    Video(#[from] embodied_r_video::Error),
    /// The key frames of a video could not be selected.
    #[error(transparent)]
    KeyFrames(embodied_r_keyframes::Error),
    /// An option of the frame selection is invalid.
    #[error("`{option}` must be {expected}, not {given}")]
    FrameOption {
        /// The option's name.
        option: &'static str,
        /// Its value.
        given: String,
        /// The valid values.
        expected: String,
    },
    /// A video that is given as a list of frames has none, or too many.
    #[error("a video of {frames} frames: it must have from 1 to {most}")]
    FrameCount {
        /// The number of frames.
        frames: usize,
        /// The largest one.
        most: usize,
    },
    /// The frames of a video differ in size.
    #[error(
        "the frame {name} has {} × {} pixels, but the video's first frame {} × {}: all must have one size",
        size.0, size.1, first.0, first.1
    )]
    FrameSizes {
        /// The frame: its file, or its number.
        name: String,
        /// Its width and height.
        size: (u32, u32),
        /// Those of the first frame.
        first: (u32, u32),
    },
    /// The selected frames of a video would take too much memory.
    #[error(
        "{frames} frames of {width} × {height} pixels are above the limit of {most} pixels for a video: select fewer, or lower `max_pixels`"
    )]
    TooManyPixels {
        /// The number of frames.
        frames: usize,
        /// Width in pixels, as they are kept.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        most: u64,
    },
    /// A record names an image or a video that is missing or broken.
    #[error("{}", located(place, reason))]
    BadRecord {
        /// The record.
        place: RecordPlace,
        /// What is wrong.
        reason: String,
    },
    /// An image file has changed or vanished since the run started.
    #[error("cannot use the image `{path}`: {reason}; restore the file and resume the run")]
    ChangedImage {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A prompt refers to an image that is not in the run's data.
    #[error("a prompt has an image that is not in the data (digest {digest:032x})")]
    UnknownImage {
        /// The image's digest.
        digest: u128,
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
    /// An image cannot be processed or encoded.
    #[error(transparent)]
    Vision(#[from] embodied_r_vision::Error),
    /// Embeddings cannot be read.
    #[error(transparent)]
    Kernels(#[from] embodied_r_kernels::Error),
}

impl From<embodied_r_keyframes::Error> for Error {
    fn from(error: embodied_r_keyframes::Error) -> Self {
        match error {
            embodied_r_keyframes::Error::Video(error) => Self::Video(error),
            error => Self::KeyFrames(error),
        }
    }
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let failed = embodied_r_files::Error::io(action, path);
        move |source| Self::Io(failed(source))
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

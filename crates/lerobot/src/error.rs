//! The crate's error type.

use std::path::PathBuf;

/// Errors of reading and writing data sets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A parquet file could not be read or written.
    #[error(transparent)]
    Data(#[from] embodied_r_data::Error),
    /// A video could not be decoded, or FFmpeg is missing.
    #[error(transparent)]
    Video(#[from] embodied_r_video::Error),
    /// A file is not JSON.
    #[error("cannot parse `{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// A field of a file is wrong.
    #[error("`{field}` of `{}` {reason}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, such as `features.action.shape`.
        field: String,
        /// What is wrong, as the rest of the sentence.
        reason: String,
    },
    /// A field of a line of a file of JSON lines is wrong.
    #[error("`{field}` in line {line} of `{}` {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// What is wrong, as the rest of the sentence.
        reason: String,
    },
    /// What a file has of an episode is wrong.
    #[error("`{field}` of episode {episode} in `{}` {reason}", path.display())]
    Episode {
        /// The file.
        path: PathBuf,
        /// The episode's index.
        episode: usize,
        /// The field, column or camera.
        field: String,
        /// What is wrong, as the rest of the sentence.
        reason: String,
    },
    /// A file of the data set is missing.
    #[error("`{}` is missing, {reason}", path.display())]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// Who needs it, and what to do.
        reason: String,
    },
    /// A file of the data set is a link to a file elsewhere.
    #[error(
        "`{}` is a link to a file outside of the data set: replace it by the file itself",
        path.display()
    )]
    Outside {
        /// The link.
        path: PathBuf,
    },
    /// The folder has data in another format.
    #[error("`{}` has data in the format {format}, which is not read: {advice}", path.display())]
    OtherFormat {
        /// The folder.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// The converter to LeRobot's format.
        advice: &'static str,
    },
    /// The data set has a version that is not read.
    #[error("`codebase_version` of `{}` is `{found}`, which is not read: {advice}", path.display())]
    Version {
        /// The file `meta/info.json`.
        path: PathBuf,
        /// The version.
        found: String,
        /// What to do, with LeRobot's converter if there is one.
        advice: &'static str,
    },
    /// The data set has no such feature.
    #[error("`{}` has no {kind} `{key}`, only: {available}", path.display())]
    NoFeature {
        /// The file `meta/info.json`.
        path: PathBuf,
        /// What the feature should be: `feature of numbers`, `camera`.
        kind: &'static str,
        /// Its key.
        key: String,
        /// The keys of the features of that kind.
        available: String,
    },
    /// A frame that was asked for does not exist.
    #[error("there is no frame {frame} of episode {episode}: {reason}")]
    NoFrame {
        /// The episode's index.
        episode: usize,
        /// The frame's index.
        frame: usize,
        /// The number of episodes or frames.
        reason: String,
    },
    /// FFmpeg lacks a decoder.
    #[error(
        "FFmpeg has no decoder of the codec `{codec}`, which `{}` needs: install FFmpeg with {package}",
        path.display()
    )]
    Decoder {
        /// The video.
        path: PathBuf,
        /// The codec.
        codec: String,
        /// The library that FFmpeg must be built with.
        package: &'static str,
    },
    /// An image of a parquet file cannot be decoded.
    #[error("`{field}` in row {row} of `{}` is no image that can be read: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The camera.
        field: String,
        /// The row, from 0.
        row: usize,
        /// The decoder's error.
        source: image::ImageError,
    },
    /// An option of a new data set is wrong.
    #[error("`{option}` of the data set {reason}")]
    WriterOption {
        /// The option or the key of the feature.
        option: String,
        /// What is wrong, as the rest of the sentence.
        reason: String,
    },
    /// An episode to write is wrong.
    #[error("`{field}` of episode {episode} {reason}")]
    NewEpisode {
        /// The episode's index.
        episode: usize,
        /// The column or camera.
        field: String,
        /// What is wrong, as the rest of the sentence.
        reason: String,
    },
    /// The folder of a new data set is not empty.
    #[error("`{}` is not empty: remove it, or write to another folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// FFmpeg lacks an encoder.
    #[error(
        "FFmpeg has none of the encoders {encoders}: install a full build of FFmpeg, or choose another codec"
    )]
    Encoder {
        /// The encoders of the codec.
        encoders: String,
    },
    /// FFmpeg could not write a video.
    #[error("`ffmpeg` could not write `{}`: {message}", path.display())]
    Encode {
        /// The video.
        path: PathBuf,
        /// Its first error.
        message: String,
    },
}

impl Error {
    /// An [`Error::Field`].
    pub(crate) fn field(
        path: &std::path::Path,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Field { path: path.into(), field: field.into(), reason: reason.into() }
    }

    /// An [`Error::Episode`].
    pub(crate) fn episode(
        path: &std::path::Path,
        episode: usize,
        field: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Episode { path: path.into(), episode, field: field.into(), reason: reason.into() }
    }
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

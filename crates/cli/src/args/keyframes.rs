//! Options of `embodied-r keyframes`.

use std::path::PathBuf;

/// Show which frames of a video are selected as key frames, and why.
///
/// Frames are sampled at 1 fps. Videos are processed in parallel; a video that cannot be decoded is reported and
/// skipped.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyframesArgs {
    /// Video files, or directories of them.
    #[arg(value_name = "VIDEO", required_unless_present = "pair")]
    pub(crate) videos: Vec<PathBuf>,
    /// Compare two images instead: estimate the homography from B to A and print the fraction of A that B covers.
    #[arg(
        long,
        num_args = 2,
        value_names = ["A", "B"],
        conflicts_with_all =
            ["videos", "contact_sheet", "threshold", "min_frames", "max_frames", "time_limit"]
    )]
    pub(crate) pair: Option<Vec<PathBuf>>,
    /// Print JSON Lines: one object per video.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a contact sheet of the sampled frames to this PNG file, with the key frames outlined.
    #[arg(long, value_name = "PNG")]
    pub(crate) contact_sheet: Option<PathBuf>,
    /// Overlap threshold: a frame that overlaps the last key frame by less than this fraction becomes a key frame.
    /// Lower it for fewer key frames.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5)]
    pub(crate) threshold: f64,
    /// Minimum number of key frames per video, if it has that many frames at 1 fps.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) min_frames: usize,
    /// Maximum number of key frames per video.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_frames: usize,
    /// Timeout per video in seconds [default: 60 plus four times the duration of the video].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) time_limit: Option<u64>,
}

//! Arguments of `embodied-r keyframes`.

use std::path::PathBuf;

/// Show which frames of a video are key frames, and why.
///
/// Several videos are looked at together, and one that cannot be read costs only itself.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyframesArgs {
    /// Videos to look at, and folders of them.
    #[arg(value_name = "VIDEO", required_unless_present = "pair")]
    pub(crate) videos: Vec<PathBuf>,
    /// Compare two pictures: how B, brought into A's view by a homography, lies over A.
    #[arg(
        long,
        num_args = 2,
        value_names = ["A", "B"],
        conflicts_with_all =
            ["videos", "contact_sheet", "threshold", "min_frames", "max_frames", "time_limit"]
    )]
    pub(crate) pair: Option<Vec<PathBuf>>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a picture of the sampled frames, with the key frames outlined.
    #[arg(long, value_name = "PNG")]
    pub(crate) contact_sheet: Option<PathBuf>,
    /// A frame that covers less than this share of the last key frame is one itself.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub(crate) threshold: f64,
    /// Key frames at least, where there are so many sampled frames.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) min_frames: usize,
    /// Key frames at most.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_frames: usize,
    /// Give a video up after so long [default: a minute, and four times its length].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) time_limit: Option<u64>,
}

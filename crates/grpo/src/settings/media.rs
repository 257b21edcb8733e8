//! Settings of questions with images and videos.

use std::path::PathBuf;

pub use embodied_r_media::sampled_video::FrameUse;
use serde::{Deserialize, Serialize};

/// How questions with images and videos are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaSettings {
    /// Whether a vision-language model sees the images and videos of the questions. Default: it does, unless the
    /// questions have captions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
    /// Columns of the data under other names, such as `answer=label,images=image_paths`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<String>,
    /// Directory of the images and videos that the data names. Default: that of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_dir: Option<PathBuf>,
    /// Directory of the videos of question files, by their names. Default: found as `perceive` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_dir: Option<PathBuf>,
    /// Leave out records that cannot be read, and those with a missing or broken image or video, and count them, instead
    /// of not starting. Default: false.
    pub skip_bad_records: bool,
    /// Frames of a video: `key` (key frames), `uniform=N`, `linspace=N`, or `fps=2,max_frames=64`. Default: `uniform=16`.
    pub frames: String,
    /// What the model sees in the frames of a video: a `video`, in temporal patches of two frames, or `images`. Default:
    /// `video`.
    pub frame_use: FrameUse,
}

impl Default for MediaSettings {
    fn default() -> Self {
        Self {
            direct: None,
            columns: None,
            image_dir: None,
            video_dir: None,
            skip_bad_records: false,
            frames: "uniform=16".to_owned(),
            frame_use: FrameUse::Video,
        }
    }
}

//! Options of questions with images and videos.

use std::path::PathBuf;

use embodied_r_media::sampled_video::FrameSelection;

use super::frames::FrameArgs;
use crate::exit::Usage;

/// Questions with images and videos, for a vision-language model.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Images and videos")]
pub(crate) struct MediaArgs {
    /// Columns of the data under other names, such as `answer=label,images=image_paths`.
    #[arg(long, value_name = "NAME=COLUMN,…")]
    pub(crate) columns: Option<String>,
    /// Directory of the images and videos that the data names [default: the data file's].
    #[arg(long, value_name = "DIR")]
    pub(crate) image_dir: Option<PathBuf>,
    /// Leave out records that cannot be read, and those with a missing or broken image or video, and count them.
    #[arg(long)]
    pub(crate) skip_bad_records: bool,
    #[command(flatten)]
    pub(crate) frames: FrameArgs,
}

impl MediaArgs {
    /// The frames of a video in the form of the setting `frames`, if an option is given.
    ///
    /// # Errors
    /// A value is invalid.
    pub(crate) fn frames(&self) -> Result<Option<String>, Usage> {
        let selection = self.frames.selection(FrameSelection::default())?;
        Ok(self.frames.is_given().then(|| selection.to_string()))
    }
}

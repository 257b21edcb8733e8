//! Arguments of commands that perceive questions on the way.

use std::path::PathBuf;

/// Who tells the videos in words, for questions that begin with `<video>` and for the sets that are
/// published with videos alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Questions that are not perceived yet")]
pub(crate) struct VideoArgs {
    /// Folder of their videos.
    #[arg(long, value_name = "DIR")]
    pub(crate) folder_path: Option<PathBuf>,
    /// Scene files to perceive them with, in place of a captioning service.
    #[arg(long, value_name = "DIR")]
    pub(crate) scenes: Option<PathBuf>,
    /// Captioning service to perceive them with, such as `http://localhost:8000/v1`.
    #[arg(long, value_name = "URL", conflicts_with = "scenes")]
    pub(crate) base_url: Vec<String>,
    /// The captioning service's model.
    #[arg(long, value_name = "NAME", requires = "base_url")]
    pub(crate) captioner: Option<String>,
}

impl VideoArgs {
    /// Whether they say who tells the videos in words.
    pub(crate) fn is_told(&self) -> bool {
        self.scenes.is_some() || !self.base_url.is_empty()
    }
}

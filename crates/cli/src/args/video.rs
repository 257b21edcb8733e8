//! Options of the commands that caption the videos of a question file on the fly.

use std::path::PathBuf;

/// The captioner of questions without captions: those that begin with `<video>`, and benchmarks published as videos.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Captioner (for questions without captions)")]
pub(crate) struct VideoArgs {
    /// Directory of the videos [default: as the questions say, else `videos` beside the data file].
    #[arg(long, aliases = ["folder-path", "folder_path"], value_name = "DIR")]
    pub(crate) video_dir: Option<PathBuf>,
    /// Caption from the 3-D annotations in this directory, without a model, as `perceive --backend scene` does.
    #[arg(long, value_name = "DIR")]
    pub(crate) scenes: Option<PathBuf>,
    /// Base URLs of OpenAI-compatible servers of the captioner, such as `http://localhost:8000/v1`; requests are
    /// balanced across them. The API key is read from `OPENAI_API_KEY`.
    #[arg(long, value_name = "URL", conflicts_with = "scenes")]
    pub(crate) base_url: Vec<String>,
    /// Name of the captioner on the servers [default: Qwen/Qwen2.5-VL-72B-Instruct].
    #[arg(long, alias = "perceiver", value_name = "NAME", requires = "base_url")]
    pub(crate) captioner: Option<String>,
}

impl VideoArgs {
    /// Whether a captioner is given.
    pub(crate) fn has_captioner(&self) -> bool {
        self.scenes.is_some() || !self.base_url.is_empty()
    }
}

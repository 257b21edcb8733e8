//! Arguments of the commands that describe a video on the way.

use std::path::PathBuf;

/// Who describes a video's key frames.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Perception")]
pub(crate) struct PerceiverArgs {
    /// Vision-language model: a folder in Hugging Face's layout or a name on the hub; with `--base-url` the name that
    /// the servers know it by.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) perceiver: Option<String>,
    /// Base URLs of OpenAI-compatible servers with that model; the API key is read from `OPENAI_API_KEY`.
    #[arg(long, num_args = 1.., value_name = "URL", requires = "perceiver")]
    pub(crate) base_url: Vec<String>,
    /// Folder of annotations to tell the truth from in place of a model, as for `perceive --backend scene`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["perceiver", "base_url"])]
    pub(crate) scenes: Option<PathBuf>,
    /// Most tokens of a frame's description [default: the server's, or 1024].
    #[arg(long, value_name = "N")]
    pub(crate) caption_tokens: Option<u32>,
    /// Reduce larger pictures to so many pixels, with a model in this process [default: what it says itself].
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    /// Folder in which descriptions are kept for the next time [default: none].
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

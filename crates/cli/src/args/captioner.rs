//! Options of the commands that caption a video interactively.

use std::path::PathBuf;

/// The captioner: a local vision-language model, one behind an API, or 3-D annotations.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Captioner")]
pub(crate) struct CaptionerArgs {
    /// Vision-language model that captions the key frames: a directory in Hugging Face layout, a GGUF file with its
    /// `mmproj`, or a Hub ID; with `--base-url`, its name on the servers.
    #[arg(long, alias = "perceiver", value_name = "MODEL")]
    pub(crate) captioner: Option<String>,
    /// Base URLs of OpenAI-compatible servers of the captioner, such as `http://localhost:8000/v1`; requests are
    /// balanced across them. The API key is read from `OPENAI_API_KEY`.
    #[arg(long, num_args = 1.., value_name = "URL", requires = "captioner")]
    pub(crate) base_url: Vec<String>,
    /// Caption from the 3-D annotations in this directory, without a model, as `perceive --backend scene` does.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["captioner", "base_url"])]
    pub(crate) scenes: Option<PathBuf>,
    /// Maximum number of tokens per caption [default: the server's limit, or 1024].
    #[arg(long, value_name = "N")]
    pub(crate) caption_tokens: Option<u32>,
    /// Downscale larger images to this many pixels; local models only [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", value_parser = super::perceive::at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    /// Directory that caches captions between runs [default: no cache].
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

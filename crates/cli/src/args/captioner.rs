//! Options of the captioner of `ask`, `chat`, `infer` and `eval`.

use std::path::PathBuf;

use clap::Command;

/// The captioner: a local vision-language model, one behind an API, or 3-D annotations.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Captioner")]
pub(crate) struct CaptionerArgs {
    /// Vision-language model that captions the key frames: a directory in Hugging Face layout, a GGUF file with its
    /// `mmproj`, or a Hub ID; with `--captioner-base-url`, its name on the servers.
    #[arg(long, alias = "perceiver", value_name = "MODEL")]
    pub(crate) captioner: Option<String>,
    /// Base URLs of OpenAI-compatible servers of the captioner, such as `http://localhost:8000/v1`; requests are
    /// balanced across them. The API key is read from `OPENAI_API_KEY`.
    #[arg(long, num_args = 1.., value_name = "URL", requires = "captioner")]
    pub(crate) captioner_base_url: Vec<String>,
    /// Caption from the 3-D annotations in this directory, without a model, as `perceive --backend scene` does.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["captioner", "captioner_base_url"])]
    pub(crate) scenes: Option<PathBuf>,
    /// Maximum number of tokens per caption [default: the server's limit, or 1024].
    #[arg(long, value_name = "N", conflicts_with = "scenes")]
    pub(crate) caption_tokens: Option<u32>,
    /// Downscale larger images to this many pixels; local models only [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", value_parser = super::value::at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    /// Directory that caches captions between runs [default: beside the output of `infer` and `eval`, no cache
    /// otherwise].
    #[arg(long, value_name = "DIR", conflicts_with = "scenes")]
    pub(crate) cache: Option<PathBuf>,
}

/// Accepts `--base-url` for `--captioner-base-url`, in commands whose captioner alone may be on a server.
pub(super) fn with_old_name(command: Command) -> Command {
    command.mut_arg("captioner_base_url", |argument| argument.alias("base-url"))
}

impl CaptionerArgs {
    /// Whether a captioner is given.
    pub(crate) fn is_given(&self) -> bool {
        self.scenes.is_some() || self.captioner.is_some()
    }
}

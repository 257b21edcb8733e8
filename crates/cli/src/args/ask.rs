//! Arguments of `embodied-r ask`.

use std::path::PathBuf;

use super::model::{DecodingArgs, WeightArgs};
use super::perceive::KeyFrameArgs;
use super::perceiver::PerceiverArgs;

/// Ask a question about a video.
///
/// Chooses the video's key frames, has them described, and lets a language model reason over the words, as `infer`
/// does for many questions. The reasoning is shown as it is drawn.
#[derive(Debug, clap::Args)]
pub(crate) struct AskArgs {
    /// The video.
    #[arg(value_name = "VIDEO")]
    pub(crate) video: PathBuf,
    /// What is asked about it.
    #[arg(value_name = "QUESTION")]
    pub(crate) question: String,
    /// An answer to choose from, such as `A=Left` or `Left`; may be given several times.
    #[arg(long = "option", value_name = "LETTER=TEXT")]
    pub(crate) options: Vec<String>,
    #[command(flatten)]
    pub(crate) perceiver: PerceiverArgs,
    /// Language model that reasons: a folder in Hugging Face's layout, a GGUF file, or a name on the hub [default: the
    /// decoder of `--perceiver`].
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) policy: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
    /// Print one JSON object: key frames with their captions, the prompt, the completion and the answer.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep frames, captions and reasoning in a folder, with a page that shows them.
    #[arg(long, value_name = "DIR")]
    pub(crate) save_trace: Option<PathBuf>,
}

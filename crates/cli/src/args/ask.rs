//! Options of `embodied-r ask`.

use std::path::PathBuf;

use super::captioner::CaptionerArgs;
use super::model::{DecodingArgs, WeightArgs};
use super::perceive::KeyFrameArgs;

/// Answer a question about a video.
///
/// Extracts the video's key frames, captions them, and lets a language model reason over the captions: `perceive` and
/// `infer` for a single question. The completion is streamed to standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct AskArgs {
    /// Video file.
    #[arg(value_name = "VIDEO")]
    pub(crate) video: PathBuf,
    /// Question about the video.
    #[arg(value_name = "QUESTION")]
    pub(crate) question: String,
    /// Answer option, such as `A=Left` or `Left`; repeat it for each option. Without options the question is
    /// open-ended.
    #[arg(long = "option", value_name = "LETTER=TEXT")]
    pub(crate) options: Vec<String>,
    /// Language model that reasons: a directory in Hugging Face layout, a GGUF file, or a Hub ID [default: the decoder
    /// of a local `--captioner`].
    #[arg(long, value_name = "MODEL")]
    pub(crate) policy: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    /// Print one JSON object: key frames with captions, prompt, completion and answer.
    #[arg(long)]
    pub(crate) json: bool,
    /// Save frames, captions and the completion to this directory, with an HTML page that shows them.
    #[arg(long, value_name = "DIR")]
    pub(crate) save_trace: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) captioner: CaptionerArgs,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
}

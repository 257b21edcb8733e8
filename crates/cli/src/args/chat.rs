//! Arguments of `embodied-r chat`.

use super::model::{DecodingArgs, StoredModel};
use super::perceive::KeyFrameArgs;
use super::perceiver::PerceiverArgs;

/// Talk with a model.
///
/// A line that ends with `\` goes on in the next. `/help` lists what may be typed beside messages.
/// Ctrl-C stops an answer, Ctrl-D ends the conversation. With `/video FILE` questions are about a video, which
/// `--perceiver` describes; a vision-language model is shown pictures with `/image FILE`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) stored: StoredModel,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    #[command(flatten)]
    pub(crate) perceiver: PerceiverArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
}

//! Options of `embodied-r chat`.

use super::captioner::CaptionerArgs;
use super::model::{DecodingArgs, StoredModel};
use super::perceive::KeyFrameArgs;

/// Chat with a model in the terminal.
///
/// End a line with `\` to continue the message on the next one. `/help` lists the commands. Ctrl-C stops generation,
/// Ctrl-D quits. After `/video FILE`, questions are about that video; it is captioned by `--captioner`, or by the model
/// itself if it is a vision-language model. `/image FILE` attaches an image for a vision-language model.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) stored: StoredModel,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    #[command(flatten)]
    pub(crate) captioner: CaptionerArgs,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
}

//! Arguments of `embodied-r chat`.

use super::model::{DecodingArgs, StoredModel};

/// Talk with a model.
///
/// A line that ends with `\` goes on in the next. `/help` lists what may be typed beside messages.
/// Ctrl-C stops an answer, Ctrl-D ends the conversation.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) stored: StoredModel,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
}

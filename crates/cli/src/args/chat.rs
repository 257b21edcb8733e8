//! Arguments of `embodied-r chat`.

use super::model::{DecodingArgs, PrecisionName};

/// Talk with a model.
///
/// A line that ends with `\` goes on in the next. `/help` lists what may be typed beside messages.
/// Ctrl-C stops an answer, Ctrl-D ends the conversation.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    /// Model: a folder in Hugging Face's layout, or a name on the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// Revision on the hub: a branch, a tag or a commit.
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
    /// What products with weights are made of: bf16 is faster, and its sums are f32.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
}

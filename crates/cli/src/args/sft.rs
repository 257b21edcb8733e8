//! Arguments of `embodied-r sft`.

/// Fine-tune on conversations (cold start).
#[derive(Debug, clap::Args)]
pub(crate) struct SftArgs {}

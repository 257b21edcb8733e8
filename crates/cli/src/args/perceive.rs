//! Arguments of `embodied-r perceive`.

/// Turn videos into text with a captioner.
#[derive(Debug, clap::Args)]
pub(crate) struct PerceiveArgs {}

//! Arguments of `embodied-r infer`.

/// Answer a file of questions.
#[derive(Debug, clap::Args)]
pub(crate) struct InferArgs {}

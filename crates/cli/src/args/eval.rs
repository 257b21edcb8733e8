//! Arguments of `embodied-r eval`.

/// Score a model, or given predictions, by a benchmark's own protocol.
#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {}

//! Arguments of `embodied-r train`.

/// Train with GRPO.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {}

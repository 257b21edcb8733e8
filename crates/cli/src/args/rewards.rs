//! Arguments of `embodied-r rewards`.

/// Score saved outputs with the trainer's rewards.
#[derive(Debug, clap::Args)]
pub(crate) struct RewardsArgs {}

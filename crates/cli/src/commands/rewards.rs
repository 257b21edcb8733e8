//! `embodied-r rewards`.

use crate::args::rewards::RewardsArgs;
use crate::exit::Status;

/// Score saved outputs with the trainer's rewards.
pub(crate) fn run(_args: RewardsArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r rewards` is not there yet")
}

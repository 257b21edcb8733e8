//! `embodied-r train`.

use crate::args::train::TrainArgs;
use crate::exit::Status;

/// Train with GRPO.
pub(crate) fn run(_args: TrainArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r train` is not there yet")
}

//! `embodied-r eval`.

use crate::args::eval::EvalArgs;
use crate::exit::Status;

/// Score a model, or given predictions, by a benchmark's own protocol.
pub(crate) fn run(_args: EvalArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r eval` is not there yet")
}

//! `embodied-r sim`.

use crate::args::sim::SimArgs;
use crate::exit::Status;

/// Make rooms, videos, questions and text to train on.
pub(crate) fn run(_args: SimArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r sim` is not there yet")
}

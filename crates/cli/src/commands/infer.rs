//! `embodied-r infer`.

use crate::args::infer::InferArgs;
use crate::exit::Status;

/// Answer a file of questions.
pub(crate) fn run(_args: InferArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r infer` is not there yet")
}

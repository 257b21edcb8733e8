//! `embodied-r perceive`.

use crate::args::perceive::PerceiveArgs;
use crate::exit::Status;

/// Turn videos into text with a captioner.
pub(crate) fn run(_args: PerceiveArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r perceive` is not there yet")
}

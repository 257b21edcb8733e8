//! `embodied-r sft`.

use crate::args::sft::SftArgs;
use crate::exit::Status;

/// Fine-tune on conversations (cold start).
pub(crate) fn run(_args: SftArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r sft` is not there yet")
}

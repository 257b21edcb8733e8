//! `embodied-r doctor`.

use crate::args::doctor::DoctorArgs;
use crate::exit::Status;

/// Check what the machine has and what is missing.
pub(crate) fn run(_args: DoctorArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r doctor` is not there yet")
}

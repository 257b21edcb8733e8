//! Arguments of `embodied-r doctor`.

/// Check what the machine has and what is missing.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {}

//! `embodied-r bench`.

use crate::args::bench::BenchArgs;
use crate::exit::Status;

/// Measure speed.
pub(crate) fn run(_args: BenchArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r bench` is not there yet")
}

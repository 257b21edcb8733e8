//! `embodied-r report`.

use crate::args::report::ReportArgs;
use crate::exit::Status;

/// Write a run's curves and completions as one HTML page.
pub(crate) fn run(_args: ReportArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r report` is not there yet")
}

//! Arguments of `embodied-r report`.

/// Write a run's curves and completions as one HTML page.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {}

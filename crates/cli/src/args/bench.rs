//! Arguments of `embodied-r bench`.

/// Measure speed.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {}

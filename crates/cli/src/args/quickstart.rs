//! Arguments of `embodied-r quickstart`.

/// Run the whole way on built-in rooms.
#[derive(Debug, clap::Args)]
pub(crate) struct QuickstartArgs {}

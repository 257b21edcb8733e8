//! Options of `embodied-r runs`.

use std::path::PathBuf;

/// List training runs with their status and latest metrics.
///
/// A run is a directory written by `train` or `sft`, with `events.jsonl`, `settings.toml` or checkpoints.
/// Subdirectories are searched, except inside runs. The most recently changed run comes first.
///
/// A run is `finished` when its last step is done, `active` if it changed within three times its own step time (at
/// least two minutes), and `stopped` otherwise. A run whose files cannot be read is `broken`, with the reason below the
/// table. Metrics are those of the last step.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArgs {
    /// Directory to search.
    #[arg(value_name = "DIR", default_value = "results/train")]
    pub(crate) dir: PathBuf,
    /// Print a JSON list instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

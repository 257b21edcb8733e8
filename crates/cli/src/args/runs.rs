//! Arguments of `embodied-r runs`.

use std::path::PathBuf;

/// List the runs in a folder.
///
/// A run is a folder that `train` or `sft` wrote: with `events.jsonl`, `settings.toml` or checkpoints.
/// Folders within folders are looked into, runs are not. The run that changed last comes first.
///
/// A run is `finished` when its last step is done, `active` when it changed within three times its
/// own step time (and at least within two minutes), else `stopped`; one whose files cannot be read is
/// `broken`, with the reason below the table. Figures are those of the last step.
#[derive(Debug, clap::Args)]
pub(crate) struct RunsArgs {
    /// Folder to look in.
    #[arg(value_name = "DIR", default_value = "results/train")]
    pub(crate) dir: PathBuf,
    /// Print a JSON list in place of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

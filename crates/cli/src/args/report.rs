//! Arguments of `embodied-r report`.

use std::path::PathBuf;

/// Write a run, or several beside each other, as one HTML page.
///
/// Of one run: its curves, scores, sample completions and settings. Of several: their curves in
/// common frames, their last figures and scores side by side, and the settings in which they differ.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Folder of the run, with its `events.jsonl`; several are compared.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    pub(crate) run: Vec<PathBuf>,
    /// Where to write the page [default: `report.html` in the run's folder; of several runs
    /// `comparison.html` in the first one's].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Results of `embodied-r eval --json`: before training, after it, then any others [default:
    /// those in the run's folder and its `eval` folder; of several runs each one's after training].
    #[arg(long, value_name = "[LABEL=]FILE", num_args = 1..)]
    pub(crate) eval: Vec<String>,
    /// Heading of the page [default: the folders' names].
    #[arg(long)]
    pub(crate) title: Option<String>,
}

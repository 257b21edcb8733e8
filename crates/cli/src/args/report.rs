//! Arguments of `embodied-r report`.

use std::path::PathBuf;

/// Write a run's curves and completions as one HTML page.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Folder of the run, with its `events.jsonl`.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// Where to write the page [default: `report.html` in the run's folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Results of `embodied-r eval --json`: before training, after it, then any others [default:
    /// those in the run's folder and its `eval` folder].
    #[arg(long, value_name = "[LABEL=]FILE", num_args = 1..)]
    pub(crate) eval: Vec<String>,
    /// Heading of the page [default: the folder's name].
    #[arg(long)]
    pub(crate) title: Option<String>,
}

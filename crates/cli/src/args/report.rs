//! Options of `embodied-r report`.

use std::path::PathBuf;

/// Write an HTML report of a run, or a comparison of several.
///
/// For one run: training curves, evaluation scores, sample completions and settings. For several: overlaid curves,
/// final metrics and scores side by side, and the settings in which they differ.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Run directory with its `events.jsonl`; give several to compare them.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    pub(crate) run: Vec<PathBuf>,
    /// HTML file to write [default: `report.html` in the run directory; `comparison.html` in the first one's if there
    /// are several].
    #[arg(long, alias = "out", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also write the reward curves of a single run as an SVG figure for other documents: format, accuracy and
    /// consistency of correct answers, in training (moving average) and on held-out questions, with the stages.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Score files from `eval --json`, in this order: before training, after training, any others [default: those in
    /// the run directory and its `eval` directory; for several runs, the scores after training of each].
    #[arg(long, value_name = "[LABEL=]FILE", num_args = 1..)]
    pub(crate) eval: Vec<String>,
    /// Title of the page [default: names of the run directories].
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
}

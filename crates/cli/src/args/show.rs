//! Options of `embodied-r show`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::value::at_least_one;

/// Browse a run's completions in the terminal.
///
/// Shows the completions of one step with question, text, raw rewards and the reasons for lost points, weighted sum,
/// advantage, length and finish reason. On a terminal the output is colored (unless `NO_COLOR` is set), wrapped at
/// words, and shown in a pager (`$PAGER`, or `less -R`).
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Run directory.
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Training step [default: the last one with completions].
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u64>,
    /// Sort order of the completions [default: sampling order, grouped by question].
    #[arg(long, value_enum)]
    pub(crate) sort: Option<Order>,
    /// Reverse the order.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Show only failed completions: accuracy 0, or no reward.
    #[arg(long)]
    pub(crate) failed: bool,
    /// Show at most N completions [default: all].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) limit: Option<usize>,
    /// Show only completions of this question.
    #[arg(long, value_name = "ID")]
    pub(crate) question: Option<String>,
    /// Show whole prompts [default: only the question, truncated if long].
    #[arg(long)]
    pub(crate) prompts: bool,
    /// Print JSON Lines: one object per completion.
    #[arg(long)]
    pub(crate) json: bool,
    /// When to color the output.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) color: Color,
    /// Print to standard output instead of a pager.
    #[arg(long)]
    pub(crate) no_pager: bool,
}

/// A sort order of completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Highest reward first.
    Reward,
    /// Longest first.
    Length,
}

/// When to color the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always, even into files and pipes.
    Always,
    /// Never.
    Never,
}

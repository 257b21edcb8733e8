//! Arguments of `embodied-r show`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::perceive::at_least_one;

/// Browse a run's completions in the terminal.
///
/// Shows the completions of one step, each with its question, its text and what it earned: raw
/// rewards with the reasons for lost points, their weighted sum, the advantage, the length and why it
/// ended. Colours are used on a terminal, unless `NO_COLOR` is set.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Folder of the run.
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// The step [default: the last one that has completions].
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u64>,
    /// Order of the completions [default: as they were sampled, question by question].
    #[arg(long, value_enum)]
    pub(crate) sort: Option<Order>,
    /// Turn the order round.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Only completions without a right answer: accuracy 0, or no reward at all.
    #[arg(long)]
    pub(crate) failed: bool,
    /// At most so many completions [default: all].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) limit: Option<usize>,
    /// Only completions to this question.
    #[arg(long, value_name = "ID")]
    pub(crate) question: Option<String>,
    /// Show prompts whole; otherwise the question alone, shortened where it is long.
    #[arg(long)]
    pub(crate) prompts: bool,
    /// Print one JSON object a completion, a line each.
    #[arg(long)]
    pub(crate) json: bool,
    /// When to use colours.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) color: Color,
}

/// An order of completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The best first.
    Reward,
    /// The longest first.
    Length,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always, into files and pipes as well.
    Always,
    /// Never.
    Never,
}

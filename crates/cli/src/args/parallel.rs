//! Arguments of the commands that run one model on several ranks.

use super::run::RankArgs;
use crate::exit::Usage;

/// Processes, and how many of them hold a model together.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Ranks")]
pub(crate) struct ParallelArgs {
    #[command(flatten)]
    pub(crate) ranks: RankArgs,
    /// Split the model over so many of the ranks (tensor parallelism); the number of heads must be a multiple of it.
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one)]
    pub(crate) tp: Option<usize>,
}

impl ParallelArgs {
    /// How many models so many ranks hold, each on `--tp` of them; without it on one.
    ///
    /// # Errors
    /// The ranks cannot be divided so.
    pub(crate) fn replicas(&self, ranks: usize) -> Result<usize, Usage> {
        let tp = self.tp.unwrap_or(1);
        match ranks.is_multiple_of(tp) {
            true => Ok(ranks / tp),
            false => {
                Err(Usage(format!("`--tp` is {tp}, and {ranks} ranks are no multiple of that")))
            }
        }
    }

    /// Checks that all ranks hold one model.
    ///
    /// # Errors
    /// `--tp` is another number than that of the ranks.
    pub(crate) fn check_one(&self, ranks: usize) -> Result<(), Usage> {
        match self.tp {
            Some(tp) if tp != ranks => Err(Usage(format!(
                "`--tp` is {tp}, and there are {ranks} ranks: this command runs one model, start {tp}"
            ))),
            _ => Ok(()),
        }
    }
}

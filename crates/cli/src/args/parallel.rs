//! Options of the commands that run one model on several ranks.

use super::run::RankArgs;
use crate::exit::Usage;

/// Ranks and tensor parallelism.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Parallelism")]
pub(crate) struct ParallelArgs {
    #[command(flatten)]
    pub(crate) ranks: RankArgs,
    /// Tensor parallel size: split the model across N ranks; must divide the number of attention heads.
    #[arg(long, value_name = "N", value_parser = super::value::at_least_one)]
    pub(crate) tp: Option<usize>,
}

impl ParallelArgs {
    /// The number of model replicas on `ranks` ranks, each on `--tp` of them (1 by default).
    ///
    /// # Errors
    /// `--tp` does not divide `ranks`.
    pub(crate) fn replicas(&self, ranks: usize) -> Result<usize, Usage> {
        let tp = self.tp.unwrap_or(1);
        match ranks.is_multiple_of(tp) {
            true => Ok(ranks / tp),
            false => Err(Usage(format!(
                "`--tp` must divide the number of ranks, {ranks}; {tp} does not"
            ))),
        }
    }

    /// Checks that one model is split across all ranks.
    ///
    /// # Errors
    /// `--tp` is not the number of ranks.
    pub(crate) fn check_one(&self, ranks: usize) -> Result<(), Usage> {
        match self.tp {
            Some(tp) if tp != ranks => Err(Usage(format!(
                "`--tp` must be the number of ranks, {ranks}, not {tp}: this command runs a single replica"
            ))),
            _ => Ok(()),
        }
    }
}

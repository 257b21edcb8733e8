//! Arguments of `embodied-r quickstart`.

use std::path::PathBuf;

use super::device::DeviceName;
use super::model::PrecisionName;

/// Run the whole way on built-in rooms.
///
/// Makes rooms with videos, questions and true answers, turns the videos into text, fine-tunes a
/// small base model, trains it with GRPO in the three stages, and scores it on rooms it has never
/// seen. Each step is one of the other commands, and is printed as it is run. What is done already
/// is not done again.
#[derive(Debug, clap::Args)]
pub(crate) struct QuickstartArgs {
    /// Folder of all that is made.
    #[arg(long, value_name = "DIR", default_value = "results/quickstart")]
    pub(crate) out: PathBuf,
    /// Seed of rooms, training and sampling.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Rooms to make; a fifth of them is kept for the test.
    #[arg(long, value_name = "N", default_value_t = 220)]
    pub(crate) rooms: u64,
    /// Train the base model anew, as `embodied-r sim pretrain` does in about 40 minutes, in place of
    /// the one that comes with the program.
    #[arg(long)]
    pub(crate) from_scratch: bool,
    /// What products with weights are made of: bf16 is faster, and its sums are f32.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Settings of the cold start to change, as with `sft --set`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) sft_set: Vec<String>,
    /// Settings of the GRPO run to change, as with `train --set`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Fine-tune and train with so many processes, as `sft --ranks` and `train --ranks` do.
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one)]
    pub(crate) ranks: Option<usize>,
    /// Fine-tune and train on so many GPUs, as `sft --gpus` and `train --gpus` do, and answer on one.
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one, conflicts_with = "ranks")]
    pub(crate) gpus: Option<usize>,
    /// What computes.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Train on answers drawn at random: the check that what is gained is gained from the rewards.
    #[arg(long)]
    pub(crate) random_rewards: bool,
}

//! Options of `embodied-r quickstart`.

use std::path::PathBuf;

use clap::{Args as _, FromArgMatches as _};

use super::device::DeviceName;
use super::precision::PrecisionName;

/// Run the whole pipeline end to end on simulated rooms, or on a simulated robot arm.
///
/// Simulates rooms, renders their videos, captions them, fine-tunes a small base model on a few worked examples, trains
/// it with GRPO on many questions with nothing but answers, and evaluates it on rooms never seen. With `--robot` the
/// questions are about demonstrations of a robot arm, as in Robot-R1, and the evaluation is on episodes never seen. Each
/// step runs another command of this program and prints it. The results are also in `results.json`. Interrupted runs
/// resume: run the same command again.
#[derive(Debug, clap::Args)]
pub(crate) struct QuickstartArgs {
    /// Output directory; with `--vision` the default is `results/quickstart-vision`, with `--robot`
    /// `results/quickstart-robot`.
    #[arg(
        long,
        alias = "out",
        value_name = "DIR",
        default_value = "results/quickstart",
        default_value_ifs([
            ("vision", "true", "results/quickstart-vision"),
            ("robot", "true", "results/quickstart-robot"),
        ])
    )]
    pub(crate) output: PathBuf,
    /// Random seed for simulation, training and sampling.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Train a small vision-language model on questions about frames of the rooms, without captions. The controls are
    /// frames of other rooms, grey frames, and no images.
    #[arg(long, conflicts_with = "robot")]
    pub(crate) vision: bool,
    /// Train a small vision-language model on questions about the next key point of a simulated robot arm, as in Robot-R1:
    /// demonstrations, questions, cold start, GRPO, evaluation by kind of question on held-out episodes and tasks, and
    /// `robot bench`. The control is a grey image.
    #[arg(long)]
    pub(crate) robot: bool,
    /// Number of demonstrations of each of the ten tasks of `--robot`. Of five tasks, 50 % of them are for training, 15 %
    /// for validation and 35 % for testing; the other five tasks are held out.
    #[arg(
        long,
        value_name = "N",
        requires = "robot",
        conflicts_with = "vision",
        value_parser = super::value::at_least_one,
        default_value_t = 60
    )]
    pub(crate) episodes: usize,
    /// Number of rooms; a fifth of them is held out for testing. With `--vision` one question is asked about each room, a
    /// third of them is held out, and the default is 1800.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "robot",
        default_value_t = 220,
        default_value_if("vision", "true", "1800")
    )]
    pub(crate) rooms: u64,
    /// Pretrain the base model, which another binary does.
    #[arg(long, hide = true)]
    pub(crate) from_scratch: bool,
    /// Precision of matrix multiplications; `bf16` is faster on GPUs and on most CPUs with AVX-512 BF16.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Override one setting of the cold start, as `sft --set` does; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) sft_set: Vec<String>,
    /// Override one setting of the GRPO run, as `train --set` does; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Train on N CPU ranks, as `sft --ranks` and `train --ranks` do [default: one process].
    #[arg(long, value_name = "N", value_parser = super::value::at_least_one)]
    pub(crate) ranks: Option<usize>,
    /// Train on N GPUs, as `sft --gpus` and `train --gpus` do, and evaluate on one.
    #[arg(long, value_name = "N", value_parser = super::value::at_least_one, conflicts_with = "ranks")]
    pub(crate) gpus: Option<usize>,
    /// Device to run on.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
    /// Number of worked examples of the cold start, uniform over categories; with `--vision` the default is 40. With
    /// `--robot` they are uniform over the kinds of questions, and the default is 60.
    #[arg(
        long,
        value_name = "N",
        value_parser = super::value::at_least_one,
        default_value_t = 32,
        default_value_ifs([("vision", "true", "40"), ("robot", "true", "60")])
    )]
    pub(crate) examples: usize,
    /// Also train and evaluate baselines and controls: SFT of the best length on the same worked examples, SFT on answers
    /// alone, rejection sampling, GRPO with random rewards and with shuffled captions. With `--vision`: SFT of the best
    /// length, and GRPO with random rewards. With `--robot`, which always compares with SFT of the best length: GRPO on grey
    /// images, and GRPO with random rewards.
    #[arg(long)]
    pub(crate) full: bool,
    /// Exit with code 3 if a claim fails, which is printed as `FAILS`. Claims are about the default numbers of rooms,
    /// examples and episodes and the default settings: with others the exit code stays 0.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print only `results.json` to standard output, and everything else to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

impl QuickstartArgs {
    /// Whether the numbers and settings that the claims are about are the default ones.
    ///
    /// # Errors
    /// Never: the options that are parsed are the struct's own.
    pub(crate) fn has_default_settings(&self) -> Result<bool, clap::Error> {
        let world = [("--vision", self.vision), ("--robot", self.robot)];
        let world = world.into_iter().filter_map(|(flag, set)| set.then_some(flag));
        let command = Self::augment_args(clap::Command::new("quickstart").no_binary_name(true));
        let default = Self::from_arg_matches(&command.try_get_matches_from(world)?)?;
        let numbers = |args: &Self| (args.rooms, args.examples, args.episodes);
        Ok(numbers(self) == numbers(&default) && self.set.is_empty() && self.sft_set.is_empty())
    }
}

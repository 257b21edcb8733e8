//! Arguments that all training commands have.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use embodied_r_grpo::settings::Recompute;

use super::device::DeviceName;
use super::model::PrecisionName;

/// A run: its settings, its model and its folder.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Settings, such as those in `configs/`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the model to begin with, or its name on the Hugging Face hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: Option<String>,
    /// Folder of the run: checkpoints, events, completions.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// What products with weights are made of: bf16 is faster, and its sums are f32 [default: f32].
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
    /// Which layers the backward computes again in place of keeping what their forward computed, or
    /// what the rollout has; it changes time and memory, and results by rounding alone
    /// [default: auto].
    #[arg(long, value_enum)]
    pub(crate) recompute: Option<RecomputeName>,
    /// Changes one setting; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Go on from the last checkpoint in the output folder (`auto`; a new run if there is none), in
    /// another run's folder, or from one checkpoint.
    #[arg(long, value_name = "auto|DIR", num_args = 0..=1, default_missing_value = "auto")]
    pub(crate) resume: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Print the batch arithmetic, the steps, the stages and the memory that it takes, and train nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// On what a run is computed, and what becomes of it after a failure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    pub(crate) ranks: RankArgs,
    /// After a failure go on from the last checkpoint, so many times. A run that fails twice without a new checkpoint
    /// in between ends all the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) restarts: u32,
    /// What computes.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
}

impl JobArgs {
    /// What computes.
    pub(crate) fn device(&self) -> DeviceName {
        self.device.or_gpus(self.ranks.gpus)
    }
}

/// By how many processes something is computed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RankArgs {
    /// Work with so many processes, which talk through MPI; they share this machine's cores, or those of the machines
    /// in `--hostfile`. Where a cluster's `mpirun` starts them, this is left out.
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one)]
    pub(crate) ranks: Option<usize>,
    /// Work on so many of this machine's GPUs, one process each, of those in `CUDA_VISIBLE_DEVICES` if it is set.
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one, conflicts_with = "ranks")]
    pub(crate) gpus: Option<usize>,
    /// Machines to start the processes of `--ranks` on, as `mpirun --hostfile` reads them: a name and `slots=N` a line.
    /// The program and the run's folder have the same paths on all.
    #[arg(long, value_name = "FILE", requires = "ranks")]
    pub(crate) hostfile: Option<PathBuf>,
    /// Let the system choose which cores the processes compute on. Otherwise those of one machine share its cores out,
    /// each within a NUMA node where that is possible.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Longest time that a rank may show no progress while others wait for it; then the run ends on all, and says which
    /// rank it was.
    #[arg(long, value_name = "SECONDS", value_parser = super::perceive::seconds, default_value = "600")]
    pub(crate) deadline: Duration,
}

/// Which layers the backward computes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum RecomputeName {
    /// Those for which there is no memory, by an estimate; the rollout's forward serves the update as
    /// far as the model's own size or that of a micro-batch goes.
    #[default]
    Auto,
    /// All, and nothing of the rollout is kept: the least memory.
    All,
    /// None, and all of the rollout is kept: the least time.
    None,
}

impl RecomputeName {
    /// The name in the settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

impl From<RecomputeName> for Recompute {
    fn from(name: RecomputeName) -> Self {
        match name {
            RecomputeName::Auto => Self::Auto,
            RecomputeName::All => Self::All,
            RecomputeName::None => Self::None,
        }
    }
}

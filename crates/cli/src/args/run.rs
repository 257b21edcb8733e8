//! Options of the training commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use embodied_r_grpo::settings::Recompute;

use super::device::DeviceName;
use super::media::MediaArgs;
use super::precision::PrecisionName;
use super::setting_flags::SettingFlag;

/// A training run: settings, model and output directory.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Settings as TOML, such as a file in `configs/`. TRL's names are accepted.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Initial model: a directory in Hugging Face layout, or a Hub ID.
    #[arg(long, alias = "model-path", value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Output directory of the run: checkpoints, events and the final model.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Precision of matrix multiplications; `bf16` is faster on GPUs and on most CPUs with AVX-512 BF16 [default: f32
    /// on a CPU, bf16 on a GPU].
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
    /// Activation recomputation (gradient checkpointing) policy: trades time for memory; results change only by
    /// rounding [default: auto].
    #[arg(long, value_enum)]
    pub(crate) recompute: Option<RecomputeName>,
    /// Override one setting, such as `learning_rate=1e-6`; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Settings given as flags of their own, such as `--learning_rate 1e-6`.
    #[arg(skip)]
    pub(crate) setting_flags: Vec<SettingFlag>,
    /// `--reward-funcs` of `train`.
    #[arg(skip)]
    pub(crate) reward_funcs: Vec<String>,
    /// Resume training. With `auto` or without a value: from the last checkpoint in the output directory, or start a
    /// new run if there is none. With DIR: from this checkpoint, or from the last one in this run directory.
    #[arg(long, value_name = "auto|DIR", num_args = 0..=1, default_missing_value = "auto")]
    pub(crate) resume: Option<PathBuf>,
    /// Print batch sizes, steps, estimated memory and, for `train`, stages, and exit without training.
    #[arg(long, display_order = 100)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
    /// Directory of the videos of question files, by their names [default: found as `perceive` does].
    #[arg(long, value_name = "DIR", help_heading = "Images and videos")]
    pub(crate) video_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// Devices, ranks and restarts of a training job.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Devices and ranks")]
pub(crate) struct JobArgs {
    #[command(flatten)]
    pub(crate) ranks: RankArgs,
    /// Maximum number of restarts: after a failure, resume from the last checkpoint. Gives up early after two failures
    /// in a row without a new checkpoint.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) restarts: u32,
    /// Device to run on.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
}

impl JobArgs {
    /// The device, CUDA if `--gpus` is given.
    pub(crate) fn device(&self) -> DeviceName {
        self.device.or_gpus(self.ranks.gpus)
    }
}

/// The number of ranks and how they are launched.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RankArgs {
    /// Launch N CPU ranks that communicate through MPI and share the cores of this machine, or of the machines in
    /// `--hostfile`. Omit it under a cluster's own `mpirun`.
    #[arg(long, value_name = "N", value_parser = super::value::at_least_one)]
    pub(crate) ranks: Option<usize>,
    /// Launch N ranks, each on one GPU of this machine, which communicate through NCCL. `CUDA_VISIBLE_DEVICES` limits
    /// the choice of GPUs. Implies `--device cuda`.
    #[arg(long, value_name = "N", value_parser = super::value::at_least_one, conflicts_with = "ranks")]
    pub(crate) gpus: Option<usize>,
    /// Machines to launch the `--ranks` on, in the format of `mpirun --hostfile`: a name and `slots=N` per line. The
    /// program and the output directory must have the same paths on all of them.
    #[arg(long, value_name = "FILE", requires = "ranks")]
    pub(crate) hostfile: Option<PathBuf>,
    /// Disable core pinning. By default, the ranks of a machine get disjoint sets of cores, within one NUMA node where
    /// possible.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Heartbeat timeout in seconds: if a rank makes no progress for this long while others wait for it, the job
    /// aborts and the error names the rank.
    #[arg(long, value_name = "SECONDS", value_parser = super::value::seconds, default_value = "600")]
    pub(crate) deadline: Duration,
}

/// Activation recomputation policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum RecomputeName {
    /// Recompute only the layers whose activations are estimated not to fit in memory. GRPO also reuses the rollout's
    /// activations where they fit.
    #[default]
    Auto,
    /// Recompute all layers: lowest memory, slowest.
    All,
    /// Keep all activations: highest memory, fastest. GRPO also reuses the rollout's.
    None,
}

impl RecomputeName {
    /// The value of the setting `recompute`.
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

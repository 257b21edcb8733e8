//! Arguments of `embodied-r plan`.

use std::path::PathBuf;

use clap::ValueEnum;

/// Estimate the memory and the time of a GRPO run before it is paid for.
///
/// Memory of each rank by part, what fits beside it, and seconds of a step by phase with what bounds each: a roofline
/// model, communication included. Nothing is loaded, and no network is needed for the shapes of Qwen2.5 and Qwen2.5-VL.
/// Ends with code 1 when the run does not fit, and says what would make it fit.
///
/// With `--captioner`, the memory of each rank of `perceive --backend local` in place of that.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// Settings as `train` takes them, such as those in `configs/`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Changes one setting; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Model: a folder, a GGUF file, or a name on the hub whose shape is known.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: Option<String>,
    /// What computes: GPUs, or this machine's processor, which is measured for two seconds.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: DeviceName,
    /// The card: A800, A100, H100, H200, L40S or 4090 [default: the first of these with `--gpu-memory`].
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Option<String>,
    /// Memory of a card in gigabytes, as it is sold [default: the card's; 40].
    #[arg(long, value_name = "GB")]
    pub(crate) gpu_memory: Option<f64>,
    /// Cards of each machine [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) gpus: Option<usize>,
    /// Machines [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<usize>,
    /// What is between machines [default: infiniband].
    #[arg(long, value_enum)]
    pub(crate) network: Option<NetworkName>,
    /// Gigabits a second, of each card with InfiniBand, of each machine with Ethernet [default: 200, 100].
    #[arg(long, value_name = "N")]
    pub(crate) network_gbps: Option<f64>,
    /// What gradients are held in on a GPU [default: f32].
    #[arg(long, value_enum)]
    pub(crate) gradients: Option<GradientsName>,
    /// Tokens of a usual prompt, for the time [default: `max_prompt_length`, which counts for the memory].
    #[arg(long, value_name = "N")]
    pub(crate) prompt: Option<usize>,
    /// Tokens of a usual completion, for the time [default: `max_completion_length`].
    #[arg(long, value_name = "N")]
    pub(crate) completion: Option<usize>,
    /// Questions to train on, for the time of the whole run.
    #[arg(long, value_name = "N")]
    pub(crate) questions: Option<usize>,
    /// Vision-language model that captions, split over `--tp` cards: a folder, or a name on the hub whose shape is
    /// known.
    #[arg(long, value_name = "DIR|NAME", conflicts_with_all = [
        "config", "sets", "model", "device", "gpus", "nodes", "network", "network_gbps", "gradients", "prompt",
        "completion", "questions",
    ])]
    pub(crate) captioner: Option<String>,
    /// Cards that the captioner is split over [default: 1].
    #[arg(long, value_name = "N", value_parser = super::perceive::at_least_one, requires = "captioner")]
    pub(crate) tp: Option<usize>,
    /// Blocks of few bits that the captioner's weights are held in, in place of bf16.
    #[arg(long, value_enum, value_name = "FORMAT", requires = "captioner")]
    pub(crate) quantize: Option<super::model::QuantizeName>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DeviceName {
    /// GPUs, one rank each.
    #[default]
    Gpu,
    /// This machine's processor.
    Cpu,
}

/// What is between machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum NetworkName {
    /// InfiniBand, an adapter for each card.
    #[default]
    Infiniband,
    /// Ethernet, an adapter for each machine.
    Ethernet,
}

/// What gradients are held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GradientsName {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

//! Options of `embodied-r plan`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::device::DeviceName;

/// Estimate memory and step time of a GRPO run before it starts.
///
/// Prints the memory of each rank by component, the headroom, and the seconds per step by phase with the bottleneck of
/// each, from a roofline model that includes communication. Loads no weights, and downloads nothing for Qwen2.5, Qwen3 and
/// their vision-language models. Exits with code 1 if the run does not fit, and suggests settings that do.
///
/// With `--captioner`, estimates the memory of `perceive --backend local` instead.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    /// Settings of `train` as TOML, such as a file in `configs/`. TRL's names are accepted.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Override one setting, such as `learning_rate=1e-6`; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Model to train: a directory in Hugging Face layout, a GGUF file, or the Hub ID of a known model.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Device to plan for. The estimate itself needs no GPU.
    #[arg(long, value_parser = DeviceName::modeled(), default_value_t = DeviceName::Cuda)]
    pub(crate) device: DeviceName,
    /// GPU model: A800, A100, H100, H200, L40S or 4090 [default: the first of these that has `--gpu-memory`].
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Option<String>,
    /// Nominal GPU memory in GB [default: that of `--gpu`, or 40].
    #[arg(long, value_name = "GB")]
    pub(crate) gpu_memory: Option<f64>,
    /// Number of GPUs per node [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) gpus: Option<usize>,
    /// Number of nodes [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<usize>,
    /// Number of ranks that share this machine's CPU, with `--device cpu` [default: 1].
    #[arg(long, value_name = "N")]
    pub(crate) ranks: Option<usize>,
    /// Interconnect between nodes [default: infiniband].
    #[arg(long, value_enum)]
    pub(crate) network: Option<NetworkName>,
    /// Bandwidth between nodes in Gbit/s [default: 200 per GPU for InfiniBand, 100 per node for Ethernet].
    #[arg(long, value_name = "GBPS")]
    pub(crate) network_gbps: Option<f64>,
    /// Images of a question, for a vision-language model that sees them [default: none].
    #[arg(long, value_name = "N")]
    pub(crate) images: Option<usize>,
    /// Frames of the video of a question, for a vision-language model that sees them [default: with `direct = true`
    /// and without `--images` as many as `frames` selects at most, else none].
    #[arg(long, value_name = "N")]
    pub(crate) video_frames: Option<usize>,
    /// Pixels of an image or a frame; `max_pixels` and `min_pixels` limit them [default: 1003520 for images, 602112 for
    /// frames].
    #[arg(long, value_name = "PIXELS", value_parser = super::value::at_least_one)]
    pub(crate) image_pixels: Option<usize>,
    /// Typical prompt length in tokens, those of images not counted, for the time estimate; memory is always estimated
    /// for `max_prompt_length` [default: `max_prompt_length`, those of images included].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) prompt: Option<usize>,
    /// Typical completion length in tokens, for the time estimate [default: `max_completion_length`].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) completion: Option<usize>,
    /// Number of training questions, to estimate the time of the whole run too, and the memory for the embeddings of
    /// all images.
    #[arg(long, value_name = "N")]
    pub(crate) questions: Option<usize>,
    /// Vision-language model of `perceive`, to estimate its memory: a directory in Hugging Face layout, or the Hub ID
    /// of a known model.
    #[arg(long, value_name = "MODEL", conflicts_with_all = [
        "config", "sets", "model", "device", "gpus", "nodes", "network", "network_gbps", "prompt", "completion",
        "questions", "images", "video_frames", "image_pixels",
    ])]
    pub(crate) captioner: Option<String>,
    /// Tensor parallel size of the captioner [default: 1].
    #[arg(long, value_name = "N", value_parser = super::value::at_least_one, requires = "captioner")]
    pub(crate) tp: Option<usize>,
    /// Quantize the captioner's weights [default: bf16 weights].
    #[arg(long, value_enum, value_name = "FORMAT", requires = "captioner")]
    pub(crate) quantize: Option<super::model::QuantizeName>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The interconnect between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum NetworkName {
    /// InfiniBand, one adapter per GPU.
    #[default]
    Infiniband,
    /// Ethernet, one adapter per node.
    Ethernet,
}

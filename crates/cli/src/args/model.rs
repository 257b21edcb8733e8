//! Arguments of every command that runs a model.

use embodied_r_policy::{BlockFormat, Placement, Precision, WeightFormat};

use super::device::DeviceName;
use crate::device;

/// Which model answers, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model: a folder in Hugging Face's layout, or a name on the hub.
    #[arg(long, visible_alias = "model-path", value_name = "DIR|NAME")]
    pub(crate) model: Option<String>,
    /// Revision on the hub: a branch, a tag or a commit.
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    /// Questions answered together; their completions are written when all are done.
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Decoding")]
    pub(crate) batch: usize,
}

/// A model that a command cannot do without.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoredModel {
    /// Model: a folder in Hugging Face's layout, a GGUF file, or a name on the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// Revision on the hub: a branch, a tag or a commit.
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
}

/// What a model's weights are held as, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WeightArgs {
    /// What products with weights are made of: bf16 is faster, and its sums are f32.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) precision: PrecisionName,
    /// Quantise the weights as they are loaded, to 8.5 or 4.5 bits each; a GGUF file's stay as they are.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "precision")]
    pub(crate) quantize: Option<QuantizeName>,
    /// What computes.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
}

impl WeightArgs {
    /// What matrices are held as.
    pub(crate) fn format(&self) -> WeightFormat {
        match self.quantize {
            None => Precision::from(self.precision).into(),
            Some(name) => WeightFormat::Blocks(name.into()),
        }
    }

    /// What matrices are held as, and where; a GPU is opened.
    ///
    /// # Errors
    /// There is no GPU, or this build has none.
    pub(crate) fn placement(&self) -> anyhow::Result<Placement> {
        self.placement_of(None)
    }

    /// As [`Self::placement`], of a process that is one of several, on GPUs if these are counted.
    ///
    /// # Errors
    /// As [`Self::placement`].
    pub(crate) fn placement_of(&self, gpus: Option<usize>) -> anyhow::Result<Placement> {
        let device = device::open(self.device.or_gpus(gpus))?;
        Ok(Placement { format: self.format(), device })
    }
}

impl From<QuantizeName> for BlockFormat {
    fn from(name: QuantizeName) -> Self {
        match name {
            QuantizeName::Q8_0 => Self::Q8_0,
            QuantizeName::Q4K => Self::Q4K,
        }
    }
}

/// A format that weights are quantised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum QuantizeName {
    /// 8 bits, and a scale for 32 numbers.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits; scales and smallest numbers for each 32 of 256.
    #[value(name = "q4_k")]
    Q4K,
}

/// The numbers that products with weights are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum PrecisionName {
    #[default]
    F32,
    Bf16,
}

impl PrecisionName {
    /// The value of the setting `precision`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
        }
    }
}

/// How completions are drawn.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodingArgs {
    /// Divides the logits; 0 takes the likeliest token always.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) temperature: f64,
    /// Draw among the likeliest tokens that together have this probability; 1 means all.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) top_p: f64,
    /// Draw among so many of the likeliest tokens; 0 means all.
    #[arg(long, default_value_t = 0)]
    pub(crate) top_k: usize,
    /// Most tokens of a completion.
    #[arg(long, visible_alias = "max-tokens", default_value_t = 3096)]
    pub(crate) max_new_tokens: usize,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// System prompt; by default the one the trainer uses.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system_prompt: Option<String>,
}

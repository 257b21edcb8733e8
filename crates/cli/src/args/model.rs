//! Options of every command that runs a model.

use std::path::Path;

use embodied_r_data::system_prompt::SystemPrompt;
use embodied_r_eval::own_prompt::EMBODIED_R_PROMPT;
use embodied_r_policy::tokenizer::{ChatTemplateKwargs, Tokenizer};
use embodied_r_policy::{
    BlockFormat, Precision, SamplingParams, SamplingSettings, WeightFormat, WeightPlacement,
};
use serde_json::{Map, Value, json};

use super::device::DeviceName;
use super::precision::PrecisionName;
use super::system_prompt::SystemPromptArgs;
use crate::device;
use crate::exit::Usage;

/// The local model and its decoding options.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model that answers: a directory in Hugging Face layout, a GGUF file, a LoRA adapter, or a Hub ID: `org/name`, or
    /// for a GGUF file `org/name/file.gguf` or `org/name:Q4_K_M`; with `--base-url`, its name on the servers.
    #[arg(long, alias = "model-path", value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Revision of the model on the Hub: a branch, tag or commit.
    #[arg(long, value_name = "REV", conflicts_with = "base_url")]
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    /// Batch size in questions; completions are written to disk after each batch.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        help_heading = "Decoding",
        conflicts_with = "base_url"
    )]
    pub(crate) batch: usize,
}

/// A model that the command requires.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoredModel {
    /// Model: a directory in Hugging Face layout, a GGUF file, a LoRA adapter, or a Hub ID: `org/name`, or for a GGUF
    /// file `org/name/file.gguf` or `org/name:Q4_K_M`.
    #[arg(long, alias = "model-path", value_name = "MODEL")]
    pub(crate) model: String,
    /// Revision of the model on the Hub: a branch, tag or commit.
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
}

/// Weight format and device.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WeightArgs {
    /// Precision of matrix multiplications; `bf16` is faster on GPUs and on most CPUs with AVX-512 BF16 [default: f32
    /// on a CPU, bf16 on a GPU].
    #[arg(long, value_enum)]
    pub(crate) precision: Option<PrecisionName>,
    /// Quantize the weights on load, to 8.5 (`q8_0`) or 4.5 (`q4_k`) bits per weight. GGUF weights keep their format. Rows
    /// that are no multiple of 256 get 5.5 bits (`q5_0`) in place of 4.5, and bf16 if no multiple of 32.
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with = "precision")]
    pub(crate) quantize: Option<QuantizeName>,
    /// Device to run on.
    #[arg(long, default_value_t)]
    pub(crate) device: DeviceName,
}

impl WeightArgs {
    /// The precision of matrix multiplications on `device`.
    pub(crate) fn precision_on(&self, device: DeviceName) -> PrecisionName {
        self.precision.unwrap_or_else(|| device.default_precision())
    }

    /// The format of weight matrices and their device, which is opened.
    ///
    /// # Errors
    /// The GPU does not exist, or this build does not support GPUs.
    pub(crate) fn placement(&self) -> anyhow::Result<WeightPlacement> {
        self.placement_of(None)
    }

    /// As [`Self::placement`], for a rank of a run on `gpus` GPUs.
    ///
    /// # Errors
    /// As [`Self::placement`].
    pub(crate) fn placement_of(&self, gpus: Option<usize>) -> anyhow::Result<WeightPlacement> {
        let name = self.device.or_gpus(gpus);
        let format = match self.quantize {
            None => Precision::from(self.precision_on(name)).into(),
            Some(name) => WeightFormat::Blocks(name.into()),
        };
        if format == WeightFormat::F32 {
            device::warn_of_f32(name);
        }
        Ok(WeightPlacement { format, device: device::open(name)? })
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

/// A quantization format, as llama.cpp names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum QuantizeName {
    /// 8 bits per weight and one scale per block of 32.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits per weight, with a scale and a minimum per block of 32 in super-blocks of 256.
    #[value(name = "q4_k")]
    Q4K,
}

impl QuantizeName {
    /// The value of `--quantize`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
        }
    }
}

/// Sampling parameters of completions.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodingArgs {
    #[command(flatten)]
    pub(crate) sampling: SamplingSettings,
    /// Where sampling parameters that are not given come from.
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    pub(crate) generation_config: GenerationConfig,
    /// Maximum number of tokens to generate per completion.
    #[arg(long, visible_alias = "max-tokens", value_name = "N", default_value_t = 3096)]
    pub(crate) max_new_tokens: usize,
    /// Random seed for sampling.
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    pub(crate) seed: u64,
    /// The system prompt.
    #[command(flatten)]
    pub(crate) system: SystemPromptArgs,
    /// Variables of the model's chat template, such as `{"enable_thinking": false}` for Qwen3; with `--base-url` they are
    /// sent to the server.
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    pub(crate) chat_template_kwargs: ChatTemplateKwargs,
}

impl DecodingArgs {
    /// The same for a benchmark's prompt: one of its own comes without a system message, unless one is given.
    #[must_use]
    pub(crate) fn with_prompt(mut self, prompt: Option<&str>) -> Self {
        if prompt.is_some_and(|prompt| prompt != EMBODIED_R_PROMPT) {
            self.system.omit_default();
        }
        self
    }

    /// The system prompt.
    pub(crate) fn system_prompt(&self) -> SystemPrompt {
        self.system.system_prompt()
    }

    /// The tokenizer of the model in `dir`, with the variables of its chat template.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub(crate) fn tokenizer(&self, dir: &Path) -> anyhow::Result<Tokenizer> {
        Ok(Tokenizer::from_dir(dir)?.with_chat_template_kwargs(self.chat_template_kwargs.clone()))
    }

    /// The sampling parameters for the model in `dir`, without its stop tokens. A server's model has no `dir`.
    ///
    /// # Errors
    /// An option is out of bounds, or the model's `generation_config.json` is wanted and invalid or a server's.
    pub(crate) fn sampling_params(&self, dir: Option<&Path>) -> anyhow::Result<SamplingParams> {
        self.sampling.check().map_err(|error| Usage(error.to_string()))?;
        let open =
            SamplingParams { max_new_tokens: self.max_new_tokens, ..SamplingParams::default() };
        let params = match (self.generation_config, dir) {
            (GenerationConfig::None, _) => {
                self.sampling.applied_to(SamplingParams { temperature: 0.0, ..open })
            }
            (GenerationConfig::Auto, Some(dir)) => {
                self.sampling.or(SamplingSettings::from_dir(dir)?).applied_to(open)
            }
            (GenerationConfig::Auto, None) => {
                let what = "`--generation-config auto` reads a file of the model, which a server has; leave it out: the \
                    server uses it for what a request does not set";
                return Err(Usage(what.into()).into());
            }
        };
        params.check().map_err(|error| Usage(error.to_string()))?;
        Ok(params)
    }

    /// The settings that completions depend on, by name. Settings of sampling are left out if decoding is greedy, and
    /// those that journals of other versions do not have if they are off.
    pub(crate) fn settings(&self, params: &SamplingParams) -> Map<String, Value> {
        let mut settings = Map::from_iter([
            ("temperature".to_owned(), json!(params.temperature)),
            ("max_new_tokens".to_owned(), json!(params.max_new_tokens)),
            ("system_prompt".to_owned(), json!(self.system_prompt())),
        ]);
        let mut insert = |name: &str, value| settings.insert(name.to_owned(), value);
        if !self.chat_template_kwargs.is_empty() {
            insert("chat_template_kwargs", json!(self.chat_template_kwargs));
        }
        if params.temperature > 0.0 {
            insert("top_p", json!(params.top_p));
            insert("top_k", json!(params.top_k));
            insert("seed", json!(self.seed));
            if params.min_p > 0.0 {
                insert("min_p", json!(params.min_p));
            }
        }
        if params.repetition_penalty != 1.0 {
            insert("repetition_penalty", json!(params.repetition_penalty));
        }
        settings
    }
}

/// Where sampling parameters that are not given come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GenerationConfig {
    /// The defaults of the options: greedy decoding.
    #[default]
    None,
    /// The model's `generation_config.json`, where it has them, as in vLLM; otherwise temperature 1.
    Auto,
}

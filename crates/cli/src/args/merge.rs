//! Options of `embodied-r merge`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Merge a LoRA adapter into its base model.
///
/// Reads an adapter in PEFT format and writes a model directory in Hugging Face layout: weights, config and tokenizer,
/// and, for a vision-language model, its vision encoder, which changes only if the adapter covers it, and image processor.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Base model of the adapter: a directory in Hugging Face layout, or a Hub ID.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// Adapter: a directory with `adapter_config.json` and `adapter_model.safetensors`, or a Hub ID.
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) adapter: String,
    /// Directory to write the merged model to; must be new or empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Data type of the merged weights [default: that of the base model].
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<Dtype>,
    /// Write only the decoder of a vision-language model, as a text model.
    #[arg(long)]
    pub(crate) text_only: bool,
    /// Merge even if the base model is not the one that the adapter was trained on.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Data type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// float16.
    Float16,
}

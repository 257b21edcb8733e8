//! Arguments of `embodied-r merge`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Merge a LoRA adapter into its model, as a folder in Hugging Face's layout.
///
/// The adapter is a folder that `peft` wrote. The output holds weights, configuration and tokenizer; of a
/// vision-language model also the vision tower and the image processor as they were.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Model that the adapter was trained on: a folder in Hugging Face's layout, or a name on the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: String,
    /// Adapter: a folder with `adapter_config.json` and `adapter_model.safetensors`.
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,
    /// Folder to write; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Format of the written weights; by default the model's own.
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<Dtype>,
    /// Write the decoder of a vision-language model as a text model.
    #[arg(long)]
    pub(crate) text_only: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// 32-bit floats.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// IEEE half precision.
    Float16,
}

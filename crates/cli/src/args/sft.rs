//! Options of `embodied-r sft`.

use std::path::PathBuf;

use super::run::RunArgs;
use super::setting_flags::AFTER_HELP;

/// Fine-tune on conversations (SFT), the cold start before GRPO.
///
/// Settings come from defaults, then `--config`, `--set` and flags; later ones override earlier ones.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SftArgs {
    /// Training data: conversations, JSONL of `{"messages": [{"role", "content"}]}`; or questions, JSON as `perceive`
    /// writes it, to train on their answers without reasoning. Takes files, folders of shards and globs.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Validation conversations, evaluated before the first step, after every epoch and after the last step.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) eval_data: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

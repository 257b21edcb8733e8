//! Arguments of `embodied-r sft`.

use std::path::PathBuf;

use super::run::RunArgs;

/// Fine-tune on conversations (cold start).
///
/// Settings come from defaults, then the file, then `--set`, then the flags.
#[derive(Debug, clap::Args)]
pub(crate) struct SftArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Conversations: JSONL of `{"messages": [{"role", "content"}]}`.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Conversations to validate on after every epoch.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval_data: Option<PathBuf>,
}

//! Arguments of `embodied-r sft`.

use std::path::PathBuf;

use super::train::ResumeArgs;

/// Fine-tune on conversations (cold start).
///
/// Settings come from defaults, then the file, then `--set`, then the flags.
#[derive(Debug, clap::Args)]
pub(crate) struct SftArgs {
    /// Settings, such as `configs/sft.toml`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the model to begin with, or its name on the Hugging Face hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) model: Option<String>,
    /// Conversations: JSONL of `{"messages": [{"role", "content"}]}`.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Conversations to validate on after every epoch.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval_data: Option<PathBuf>,
    /// Folder of the run: checkpoints and events.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Changes one setting; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    #[command(flatten)]
    pub(crate) resume: ResumeArgs,
    /// Print the batch arithmetic, and train nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

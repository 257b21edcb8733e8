//! Options of `embodied-r train`.

use std::path::PathBuf;

use super::run::RunArgs;
use super::setting_flags::AFTER_HELP;

/// Train with GRPO.
///
/// Settings come from defaults (the paper's run), then `--config`, `--set` and flags; later ones override earlier ones.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TrainArgs {
    /// Training questions: JSON with captions, as `perceive` writes it, or questions with images and videos in a format of
    /// `docs/guide/data.md`. A text model reads their text alone. Takes files, folders of shards and globs.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Validation questions, evaluated every `eval_steps` steps.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) eval_data: Vec<PathBuf>,
    /// Train on these rewards with weight 1 each, instead of the stages and `reward_weights` of the settings, for
    /// `num_train_epochs` epochs (1 by default).
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub(crate) reward_funcs: Vec<String>,
    /// Verify sequence packing: compare the gradients of the first step with those computed one completion at a time,
    /// unpacked and each with its own prompt.
    #[arg(long, display_order = 101)]
    pub(crate) verify_packing: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

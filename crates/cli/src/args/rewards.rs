//! Options of `embodied-r rewards`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Score saved completions with the training rewards.
#[derive(Debug, Args)]
pub(crate) struct RewardsArgs {
    #[command(subcommand)]
    pub(crate) command: RewardsCommand,
}

/// Subcommands of `rewards`.
#[derive(Debug, Subcommand)]
pub(crate) enum RewardsCommand {
    Score(ScoreArgs),
}

/// Score each completion of a file, with the reason for every lost point.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Completions: Embodied-R's JSON with `content`, or JSONL of `question`, `solution` and `completion`.
    pub(crate) file: PathBuf,
    /// Print JSON Lines: one object per completion.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) judge: JudgeArgs,
}

/// The judge of the consistency reward, which is not scored without one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Consistency judge")]
pub(crate) struct JudgeArgs {
    /// The judge: a model directory, GGUF file or Hub ID, which judges in process with the trainer's prompts; with
    /// `--judge-base-url`, the model's name on the servers.
    #[arg(long, value_name = "MODEL")]
    pub(crate) judge_model: Option<String>,
    /// Comma-separated base URLs of OpenAI-compatible servers of the judge, such as `http://localhost:8000/v1`;
    /// requests are balanced across them.
    #[arg(long, value_delimiter = ',', value_name = "URL", requires = "judge_model")]
    pub(crate) judge_base_url: Vec<String>,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "VARIABLE", requires = "judge_base_url")]
    pub(crate) judge_api_key_env: Option<String>,
}

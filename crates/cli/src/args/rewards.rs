//! Arguments of `embodied-r rewards`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Score saved outputs with the trainer's rewards.
#[derive(Debug, Args)]
pub(crate) struct RewardsArgs {
    #[command(subcommand)]
    pub(crate) command: RewardsCommand,
}

/// What to do with the outputs.
#[derive(Debug, Subcommand)]
pub(crate) enum RewardsCommand {
    /// Score each output of a file, and say why points were lost.
    Score(ScoreArgs),
}

/// Arguments of `embodied-r rewards score`.
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Saved outputs: the official JSON with `content`, or JSONL of `question`, `solution` and
    /// `completion`.
    pub(crate) file: PathBuf,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) judge: JudgeArgs,
}

/// Who judges consistency. Without a judge there is no consistency score.
#[derive(Debug, Args)]
#[command(next_help_heading = "Consistency judge")]
pub(crate) struct JudgeArgs {
    /// Base URL of an OpenAI-compatible server with the judge's model, such as
    /// `http://localhost:8000/v1`; several, apart by commas, share the work.
    #[arg(long, value_delimiter = ',', value_name = "URL", requires = "judge_model")]
    pub(crate) judge_base_url: Vec<String>,
    /// The name by which the servers know the judge's model.
    #[arg(long, value_name = "NAME", requires = "judge_base_url")]
    pub(crate) judge_model: Option<String>,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "NAME", requires = "judge_base_url")]
    pub(crate) judge_api_key_env: Option<String>,
}

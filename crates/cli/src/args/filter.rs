//! Arguments of `embodied-r filter`.

use std::path::PathBuf;
use std::time::Duration;

use super::device::DeviceName;
use super::model::PrecisionName;
use super::perceive::{at_least_one, seconds};

/// Drop questions that a blind model answers right.
///
/// The bias filter of Embodied-R: a model that is shown the question and its choices, and neither
/// the video nor the text of it, is asked several times. Questions that it answers right often enough
/// tell nothing about what was seen, and are left out of the output; all others are written as they
/// were. Numeric questions are kept without being asked.
///
/// Beside the output lies `OUT.tries.jsonl`: the settings, then a line a question with the replies of
/// all tries. Stopped at any moment, the same command goes on where it was; with another `--drop-at`
/// it decides anew without asking again.
#[derive(Debug, clap::Args)]
pub(crate) struct FilterArgs {
    /// Questions: the official JSON, perceived or not, EgoSchema's `questions.json`, MVBench's
    /// `egocentric_navigation.json`, or the folder of one of the latter.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// File to write the kept questions to, in the form of the data.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// File of EgoSchema's answers [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// How often each question is asked.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) tries: usize,
    /// Drop a question that is answered right in so many tries [default: three quarters of them,
    /// rounded up].
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub(crate) drop_at: Option<usize>,
    /// Take only the first so many questions.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    #[command(flatten)]
    pub(crate) drawing: DrawingArgs,
}

/// A blind model in this process.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A local model")]
pub(crate) struct LocalArgs {
    /// Model: a folder in Hugging Face's layout, or a name on the hub.
    #[arg(
        long,
        value_name = "DIR|NAME",
        conflicts_with = "base_url",
        required_unless_present = "base_url"
    )]
    pub(crate) model: Option<String>,
    /// Revision on the hub: a branch, a tag or a commit.
    #[arg(long, value_name = "REV", requires = "model")]
    pub(crate) revision: Option<String>,
    /// What products with weights are made of: bf16 is faster, and its sums are f32 [default: f32].
    #[arg(long, value_enum, requires = "model")]
    pub(crate) precision: Option<PrecisionName>,
    /// What computes [default: cpu].
    #[arg(long, requires = "model")]
    pub(crate) device: Option<DeviceName>,
    /// Questions asked together; their tries are written when all are done [default: 16].
    #[arg(long, value_name = "N", requires = "model", value_parser = at_least_one)]
    pub(crate) batch: Option<usize>,
}

/// A blind model behind an OpenAI-compatible API.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A model behind an OpenAI-compatible API")]
pub(crate) struct ApiArgs {
    /// Base URLs of servers with the model, such as `http://localhost:8000/v1`; requests are spread
    /// over them.
    #[arg(long, num_args = 1.., value_name = "URL", requires = "api_model")]
    pub(crate) base_url: Vec<String>,
    /// The name by which the servers know the model.
    #[arg(long, value_name = "NAME", requires = "base_url")]
    pub(crate) api_model: Option<String>,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "NAME", requires = "base_url")]
    pub(crate) api_key_env: Option<String>,
    /// Questions in work at the same time, one request each [default: 16].
    #[arg(long, value_name = "N", requires = "base_url", value_parser = at_least_one)]
    pub(crate) concurrency: Option<usize>,
    /// Longest time for one request, in seconds [default: 300].
    #[arg(long, value_name = "SECONDS", requires = "base_url", value_parser = seconds)]
    pub(crate) timeout_s: Option<Duration>,
    /// How often a request is sent again [default: 5].
    #[arg(long, value_name = "N", requires = "base_url")]
    pub(crate) max_retries: Option<u32>,
}

/// How the tries are drawn.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DrawingArgs {
    /// Divides the logits; 0 takes the likeliest token always, and leaves sense in one try only.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) temperature: f64,
    /// Most tokens of a try.
    #[arg(long, visible_alias = "max-tokens", default_value_t = 512)]
    pub(crate) max_new_tokens: u32,
    /// Seed of the sampling; each try of each question has its own from it.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// System prompt [default: one that asks for the most likely option].
    #[arg(long, value_name = "TEXT")]
    pub(crate) system_prompt: Option<String>,
}

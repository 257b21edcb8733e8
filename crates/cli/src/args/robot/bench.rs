//! Options of `embodied-r robot bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Command, ValueEnum};

use crate::args::api::ApiArgs;
use crate::args::model::StoredModel;
use crate::args::reasoner::refuse_local;
use crate::args::value::{at_least_one, price, seconds};

/// Options of a local model.
const LOCAL: [&str; 6] = ["revision", "precision", "quantize", "device", "batch", "min_pixels"];

/// Answer open questions about images of a robot's workspace, and score the answers from 0 to 3, as in Robot-R1 Bench.
///
/// The model answers with greedy decoding; what is in its `<answer>` tag counts, or all of its completion without one. A
/// judge behind an OpenAI-compatible API compares each answer with the reference answer; `--judge exact` scores movement
/// and spatial questions of the simulated arm by rules, without a server. With both, their agreement is reported.
///
/// Writes `answers.json`, `judge.jsonl` with every reply of the judge, `usage.jsonl`, `scores.json` and `report.md`, which
/// has the published results beside. Interrupted runs keep finished work; run the command again to resume.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: StoredModel,
    /// Questions: a JSON list or JSON lines of records with `image`, `question`, `answer`, `type` (`planning`,
    /// `high-level action`, `movement` or `spatial`), `task` and `split`.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// Output directory.
    #[arg(long, alias = "out", value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Answer only the first N questions [default: all].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) limit: Option<usize>,
    /// Maximum number of tokens of an answer, with its reasoning.
    #[arg(long, visible_alias = "max-tokens", value_name = "N", default_value_t = 2048)]
    pub(crate) max_new_tokens: usize,
    /// Batch size in questions; answers are written to disk after each batch.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) batch: usize,
    /// Downscale larger images to this many pixels [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", value_parser = at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    /// Enlarge smaller images to this many pixels [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", value_parser = at_least_one)]
    pub(crate) min_pixels: Option<usize>,
    /// Random seed of the bootstrap intervals.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print the scores as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    #[command(flatten)]
    pub(crate) judge: JudgeArgs,
}

/// Refuses options of a local model where `--base-url` has one on a server.
///
/// # Errors
/// Such an option was given.
pub(super) fn check(matches: &ArgMatches, command: &mut Command) -> Result<(), clap::Error> {
    match matches.contains_id("base_url") {
        true => refuse_local(matches, command, &LOCAL),
        false => Ok(()),
    }
}

/// Who scores the answers.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Judge")]
pub(crate) struct JudgeArgs {
    /// Score movement and spatial questions that have `facts` by rules.
    #[arg(long, value_enum, value_name = "JUDGE", required_unless_present = "judge_base_url")]
    pub(crate) judge: Option<JudgeName>,
    /// Axes that are to move less than this, in metres, need not be named in an answer; for `--judge exact`.
    #[arg(long, value_name = "M", default_value_t = 0.005, requires = "judge")]
    pub(crate) movement_epsilon: f64,
    /// Base URLs of OpenAI-compatible servers of a judge, such as `http://localhost:8000/v1`; requests are balanced across
    /// them.
    #[arg(long, num_args = 1.., value_name = "URL", requires = "judge_model")]
    pub(crate) judge_base_url: Vec<String>,
    /// The judge's name on the servers.
    #[arg(long, value_name = "NAME", requires = "judge_base_url")]
    pub(crate) judge_model: Option<String>,
    /// Sampling temperature of the judge, as in the paper.
    #[arg(long, value_name = "T", default_value_t = 1.0, requires = "judge_base_url")]
    pub(crate) judge_temperature: f64,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "VARIABLE", requires = "judge_base_url")]
    pub(crate) judge_api_key_env: Option<String>,
    /// Maximum number of concurrent requests.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        requires = "judge_base_url",
        value_parser = at_least_one
    )]
    pub(crate) judge_concurrency: usize,
    /// Request timeout in seconds [default: 300].
    #[arg(long, value_name = "SECONDS", requires = "judge_base_url", value_parser = seconds)]
    pub(crate) judge_timeout_s: Option<Duration>,
    /// Maximum number of retries per failed request. Rate-limited requests (429) are retried for up to ten minutes
    /// without counting.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "judge_base_url")]
    pub(crate) judge_max_retries: u32,
    /// Price per million prompt tokens, in any currency.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "price_out")]
    pub(crate) price_in: Option<f64>,
    /// Price per million completion tokens, in the same currency.
    #[arg(long, value_name = "PRICE", value_parser = price, requires_all = ["price_in", "judge_base_url"])]
    pub(crate) price_out: Option<f64>,
    /// Budget for all runs into this output directory, in the currency of the prices. The run stops before a request
    /// that could exceed it [default: none].
    #[arg(long, value_name = "COST", value_parser = price, requires_all = ["price_in", "price_out"])]
    pub(crate) max_cost: Option<f64>,
}

/// A judge that is no model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JudgeName {
    /// Rules, from what is true of the simulated scene.
    Exact,
}

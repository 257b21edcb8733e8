//! Options of `embodied-r perceive`.

pub(crate) mod backend;

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use embodied_r_perception::perceive::Shard;

use super::benchmark::BenchmarkArgs;
use super::model::WeightArgs;
use super::parallel::ParallelArgs;
use super::value::{at_least_one, price, seconds};

use backend::Backend;
pub(super) use backend::{check as check_backend, with_backend_headings};

/// Caption the videos of a question set.
///
/// Extracts key frames, captions them, and writes a copy of each data file in which prompts with the captions replace
/// the questions. `NAME.captions.jsonl` beside it has one line per question. Interrupted runs keep finished work; run
/// the command again to resume and to retry failed questions.
///
/// The completions of a captioner are cached by video content, frames, prompt and model, so that no frame is captioned
/// twice, even across failed runs. Token counts and cost of all runs accumulate in `usage.jsonl` in the output
/// directory.
///
/// To use several machines, run the same command with a different `--shard` on each, then `perceive merge`. With
/// `--backend local`, `--tp` splits a model that is too large for one rank across several of the `--ranks` or `--gpus`;
/// the other ranks form further replicas, and the videos are partitioned among the replicas.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PerceiveArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PerceiveCommand>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArgs,
    /// Directory of the videos [default: as the questions say, else `videos` beside the data file].
    #[arg(long, alias = "folder-path", value_name = "DIR")]
    pub(crate) video_dir: Option<PathBuf>,
    /// Captioning backend.
    #[arg(long, value_enum, default_value_t = Backend::Openai)]
    pub(crate) backend: Backend,
    /// Caption each video once per question, conditioned on the question as in the paper, or once for all its
    /// questions, which is cheaper.
    #[arg(long, value_enum, default_value_t = ScopeName::Question)]
    pub(crate) scope: ScopeName,
    /// Process only shard I of N, from `1/N` to `N/N`, and write it to `shard-I-of-N` in the output directory.
    /// Questions about the same video are in the same shard. Slurm and Kubernetes count from 0: add 1.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// Maximum number of concurrent questions, and of requests in flight over all servers; an overloaded server's
    /// limit is lowered automatically.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// Process at most N questions of each file in this run [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Re-caption questions that an earlier run captioned with different settings [default: exit with an error].
    #[arg(long)]
    pub(crate) redo_changed: bool,
    #[command(flatten)]
    pub(crate) key_frames: KeyFrameArgs,
    #[command(flatten)]
    pub(crate) model: VisionModelArgs,
    #[command(flatten)]
    pub(crate) openai: OpenAiArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    #[command(flatten)]
    pub(crate) parallel: ParallelArgs,
    #[command(flatten)]
    pub(crate) scene: SceneArgs,
}

/// Subcommands of `perceive`.
#[derive(Debug, Subcommand)]
pub(crate) enum PerceiveCommand {
    Merge(MergeShardsArgs),
}

/// Merge the outputs of `--shard` runs into that of a single run.
///
/// Fails without writing anything if a shard or a question is missing or duplicated, and names it. Questions that
/// failed in their shard are allowed; `perceive` without `--shard` retries them.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeShardsArgs {
    /// Shard directories, `shard-1-of-8` and so on [default: those in the output directory].
    #[arg(value_name = "DIR")]
    pub(crate) shards: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Questions, and where their prompts are written.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Questions: Embodied-R's JSON, or the file or directory of EgoSchema (`questions.json`) or MVBench
    /// (`egocentric_navigation.json`). Takes files, folders of shards and globs; each file has an output of its name.
    #[arg(
        long,
        alias = "data-paths",
        num_args = 1..,
        value_name = "FILE",
        default_values = [
            "dataset/complete/train_data.json",
            "dataset/complete/val_data.json",
            "dataset/complete/test_data.json",
        ],
    )]
    pub(crate) data: Vec<PathBuf>,
    /// EgoSchema's answer file [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// Output directory.
    #[arg(long, alias = "save-path", value_name = "DIR", default_value = "results/inter")]
    pub(crate) output: PathBuf,
}

/// How often a video is captioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeName {
    /// Once per question.
    Question,
    /// Once for all questions of the video.
    Video,
}

/// Key-frame selection.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Key frames")]
pub(crate) struct KeyFrameArgs {
    /// Overlap threshold: a frame that overlaps the last key frame by less than this fraction becomes a key frame.
    /// Lower it for fewer key frames.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5)]
    pub(crate) threshold: f64,
    /// Minimum number of key frames per video, if it has that many frames at 1 fps.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) min_frames: usize,
    /// Maximum number of key frames per video [default: 32].
    #[arg(long, value_name = "N")]
    pub(crate) max_frames: Option<usize>,
}

/// For backends with a model.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = backend::CAPTIONER)]
pub(crate) struct VisionModelArgs {
    /// Vision-language model that captions the key frames. With `--backend local`: a directory in Hugging Face layout,
    /// a GGUF file with its `mmproj`, or a Hub ID; required. With `--backend openai`: its name on the servers
    /// [default: Qwen/Qwen2.5-VL-72B-Instruct].
    #[arg(long, aliases = ["model-path", "perceiver"], value_name = "MODEL")]
    pub(crate) captioner: Option<String>,
    /// Sampling temperature; 0 is greedy [default: the server's, or the model's own].
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    /// Maximum number of tokens per caption; a truncated caption is retried once with twice the limit [default: the
    /// server's limit, or 1024].
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Longest side of frames in pixels; larger frames are downscaled [default: 1280].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(28..))]
    pub(crate) image_side: Option<u32>,
    /// Directory of the completion cache; several runs may share one [default: `cache` in the output directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

/// For `--backend local`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = backend::LOCAL)]
pub(crate) struct LocalArgs {
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    /// Downscale larger images to this many pixels [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", value_parser = at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    /// KV cache size per rank in GB (10^9 bytes), including cached prompt prefixes.
    #[arg(long, value_name = "GB", default_value_t = 4.0, value_parser = gigabytes)]
    pub(crate) kv_cache_gb: f64,
    /// Maximum number of sequences decoded concurrently.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    pub(crate) max_num_seqs: usize,
}

/// For `--backend openai`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = backend::OPENAI)]
pub(crate) struct OpenAiArgs {
    /// Base URLs of OpenAI-compatible servers of the captioner; requests are balanced across them, and failing servers
    /// are avoided for a while. Append `#weight=2` to a URL to double its share of the requests [default:
    /// http://localhost:8000/v1].
    #[arg(long, num_args = 1.., value_name = "URL")]
    pub(crate) base_url: Vec<String>,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) api_key_env: Option<String>,
    /// Request timeout in seconds [default: 300].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout_s: Option<std::time::Duration>,
    /// Connection timeout in seconds [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) connect_timeout_s: Option<std::time::Duration>,
    /// Time-to-first-byte timeout in seconds. Most servers send nothing before the whole caption is generated [default:
    /// `--timeout-s`].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) first_byte_timeout_s: Option<std::time::Duration>,
    /// Maximum number of retries per failed request. Rate-limited requests (429) are retried for up to ten minutes
    /// without counting [default: 5].
    #[arg(long, value_name = "N")]
    pub(crate) max_retries: Option<u32>,
    /// Retry frames that the model refused to caption in an earlier run.
    #[arg(long)]
    pub(crate) retry_refused: bool,
    /// Price per million prompt tokens, images included, in any currency.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "price_out")]
    pub(crate) price_in: Option<f64>,
    /// Price per million completion tokens, in the same currency.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "price_in")]
    pub(crate) price_out: Option<f64>,
    /// Budget for all runs into this output directory, in the currency of the prices. The run stops before a request
    /// that could exceed it; a request in flight reserves the highest cost so far of one with as many images [default:
    /// none].
    #[arg(long, value_name = "COST", value_parser = price, requires_all = ["price_in", "price_out"])]
    pub(crate) max_cost: Option<f64>,
}

/// For `--backend scene`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = backend::SCENE)]
pub(crate) struct SceneArgs {
    /// Directory of the annotations: `VIDEO.json` of simulated rooms, or `*meta_info*.json` of VSI-Bench.
    #[arg(long, value_name = "DIR", required_if_eq("backend", "scene"))]
    pub(crate) scenes: Option<PathBuf>,
}

fn gigabytes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(gb) if gb.is_finite() && gb > 0.0 => Ok(gb),
        Ok(_) => Err("must be a number above 0".to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

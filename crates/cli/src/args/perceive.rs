//! Arguments of `embodied-r perceive`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use embodied_r_perception::perceive::Shard;

use super::model::WeightArgs;
use super::parallel::ParallelArgs;

/// Turn videos into text with a captioner.
///
/// Writes each data file again with every question replaced by the prompt that holds the captions,
/// and beside it `NAME.captions.jsonl`, one line per question. A run that was stopped goes on where
/// it was; questions that failed are tried again.
///
/// A model's replies are kept in a cache, found by the video's content, the frames, the prompt and the
/// model: no frame is paid for twice, whatever happened to the run that asked for it. Tokens and costs
/// are counted over all runs into `usage.jsonl` in the folder of the outputs.
///
/// For several machines, give each the same command with another `--shard`, then put the parts
/// together with `perceive merge`. A model that is too large for one process is split over `--tp` of
/// the `--ranks` of `--backend local`; where there are more ranks, each `--tp` of them have a model of
/// their own, and share the videos.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct PerceiveArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PerceiveCommand>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Folder of the videos [default: where the questions say, else `videos` beside the data file].
    #[arg(long, value_name = "DIR")]
    pub(crate) folder_path: Option<PathBuf>,
    /// Who makes the captions.
    #[arg(long, value_enum, default_value_t = Backend::Openai)]
    pub(crate) backend: Backend,
    /// What captions are made for: each question its own, as in the paper, or each video once for all
    /// of its questions, which is as many times cheaper as a video has questions, but looks out for
    /// nothing in particular.
    #[arg(long, value_enum, default_value_t = ScopeName::Question)]
    pub(crate) scope: ScopeName,
    /// Do one of N parts of the questions, from `1/N` to `N/N`, into `shard-I-of-N` in the folder of
    /// the outputs; a video is in one part as a whole. Where machines are counted from 0, as by Slurm
    /// and Kubernetes, add 1.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// Questions in work at the same time, and requests on their way over all servers; a server that
    /// is overrun gets fewer until it copes.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// At most so many questions of each file now [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Make captions anew that an earlier run made with other settings.
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

/// What else to do.
#[derive(Debug, Subcommand)]
pub(crate) enum PerceiveCommand {
    Merge(MergeShardsArgs),
}

/// Put the outputs of `--shard` runs together, as one run would have written them.
///
/// Nothing is written where a shard or a question is missing or there twice: it is named instead.
/// Questions that failed in their shard are no gap; the same `perceive` without `--shard` tries them
/// again.
#[derive(Debug, clap::Args)]
pub(crate) struct MergeShardsArgs {
    /// Folders of the shards, `shard-1-of-8` and so on [default: those in the folder of the outputs].
    #[arg(value_name = "DIR")]
    pub(crate) shards: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Questions and where their prompts go.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// Data files in the official JSON form, or as EgoSchema (`questions.json`) or MVBench
    /// (`egocentric_navigation.json`) publish theirs, or the folders of those.
    #[arg(long, num_args = 1.., value_name = "FILE", default_values = [
        "dataset/complete/train_data.json",
        "dataset/complete/val_data.json",
        "dataset/complete/test_data.json",
    ])]
    pub(crate) data_paths: Vec<PathBuf>,
    /// File of EgoSchema's answers [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// Folder of the outputs.
    #[arg(long, value_name = "DIR", default_value = "results/inter")]
    pub(crate) save_path: PathBuf,
}

/// What captions are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeName {
    /// Each question has captions of its own.
    Question,
    /// All questions of a video have the same captions.
    Video,
}

/// Who makes the captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// A vision-language model behind an OpenAI-compatible API.
    Openai,
    /// A vision-language model in this process.
    Local,
    /// The truth from 3-D annotations, without a model.
    Scene,
}

/// How key frames are chosen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Key frames")]
pub(crate) struct KeyFrameArgs {
    /// A frame is a key frame where it overlaps the last one by less than this share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub(crate) threshold: f64,
    /// Fewest key frames of a video.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) min_frames: usize,
    /// Most key frames of a video.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_frames: usize,
}

/// For backends with a model. What has a default there is `None` here, so that it can be told whether
/// it was typed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --backend openai or local")]
pub(crate) struct VisionModelArgs {
    /// Name that the servers know the model by [default: Qwen/Qwen2.5-VL-72B-Instruct]; with the local
    /// backend the model's folder, or its name on the hub.
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) model_path: Option<String>,
    /// Sampling temperature [default: the server's, or the model's own].
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    /// Most tokens of a caption; one that is cut off there is asked for once more with twice as many
    /// [default: the server's, or 1024].
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Longest side of the pictures, in pixels [default: 1280].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(28..))]
    pub(crate) image_side: Option<u32>,
    /// Folder in which replies are kept; several runs may share one [default: `cache` in the folder of
    /// the outputs].
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

/// For `--backend local`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --backend local")]
pub(crate) struct LocalArgs {
    #[command(flatten)]
    pub(crate) weights: WeightArgs,
    /// Reduce larger pictures to so many pixels [default: what the model's processor says].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) max_pixels: Option<usize>,
    /// Memory of each rank for keys and values, in GB: what prompts begin with in common is kept in it.
    #[arg(long, value_name = "GB", default_value_t = 4.0)]
    pub(crate) kv_cache_gb: f64,
    /// Captions that are written together, at most.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    pub(crate) max_num_seqs: usize,
}

/// For `--backend openai`. What has a default there is `None` here, so that it can be told whether
/// it was typed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --backend openai")]
pub(crate) struct OpenAiArgs {
    /// Base URLs of servers with that model; requests are spread over them. With `#weight=2` behind it
    /// one gets twice the share of one without. A server that keeps failing is left alone for a while
    /// [default: http://localhost:8000/v1].
    #[arg(long, num_args = 1.., value_name = "URL")]
    pub(crate) base_url: Vec<String>,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "NAME")]
    pub(crate) api_key_env: Option<String>,
    /// Longest time for one request, in seconds [default: 300].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout_s: Option<std::time::Duration>,
    /// Longest time to reach a server, in seconds [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) connect_timeout_s: Option<std::time::Duration>,
    /// Longest time to a reply's first byte, in seconds. Most servers send it when the whole caption is
    /// there [default: that of `--timeout-s`].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) first_byte_timeout_s: Option<std::time::Duration>,
    /// How often a request that failed is sent again; being told to wait (429) is no failure, up to
    /// ten minutes of it [default: 5].
    #[arg(long, value_name = "N")]
    pub(crate) max_retries: Option<u32>,
    /// Ask again for frames that the model refused to describe in an earlier run.
    #[arg(long)]
    pub(crate) retry_refused: bool,
    /// Price of a million tokens of prompts, images included.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "price_out")]
    pub(crate) price_in: Option<f64>,
    /// Price of a million tokens of replies.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "price_in")]
    pub(crate) price_out: Option<f64>,
    /// Stop in good order before a request would bring the cost of all runs into this folder above
    /// this; a request is taken to cost what the dearest one of its kind did.
    #[arg(long, value_name = "COST", value_parser = price, requires_all = ["price_in", "price_out"])]
    pub(crate) max_cost: Option<f64>,
}

/// For `--backend scene`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --backend scene")]
pub(crate) struct SceneArgs {
    /// Folder of the annotations: `VIDEO.json` of built-in rooms, `*meta_info*.json` of VSI-Bench.
    #[arg(long, value_name = "DIR", required_if_eq("backend", "scene"))]
    pub(crate) scenes: Option<PathBuf>,
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

fn price(text: &str) -> Result<f64, String> {
    let price: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match price.is_finite() && price >= 0.0 {
        true => Ok(price),
        false => Err("it must be a number of at least 0".to_owned()),
    }
}

pub(super) fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be a number of seconds above 0".to_owned()),
    }
}

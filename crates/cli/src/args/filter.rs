//! Options of `embodied-r filter`.

use std::path::PathBuf;

use embodied_r_data::DataFiles;

use super::api::ApiArgs;
use super::benchmark::BenchmarkArgs;
use super::device::DeviceName;
use super::direct::{DirectArgs, MediaLimits};
use super::precision::PrecisionName;
use super::system_prompt::SystemPromptPresetName;
use super::value::at_least_one;
use crate::direct::Direct;
use crate::exit::Usage;
use crate::questions::QuestionSource;

/// Drop questions that a text-only (blind) model answers correctly.
///
/// The bias filter of Embodied-R: a model that sees the question and its options, but neither the video nor its
/// captions, answers each question several times. Questions that it often answers correctly can be guessed and are
/// dropped; all others are copied unchanged. Numeric questions are always kept.
///
/// The settings and all completions are saved beside the output, in `OUTPUT.tries.jsonl`. Interrupted runs resume from
/// it, and a run with another `--drop-at` reuses its completions.
///
/// With `--direct`, the model is not blind: a vision-language model sees the images and video frames, so that questions that
/// are too easy for it are dropped. `--data` may then have any format that `train` reads; kept questions are written in
/// Embodied-R's JSON.
#[derive(Debug, clap::Args)]
pub(crate) struct FilterArgs {
    /// Questions: Embodied-R's JSON, with or without captions, or the file or directory of EgoSchema (`questions.json`)
    /// or MVBench (`egocentric_navigation.json`). Takes files, folders of shards and globs.
    #[arg(long, num_args = 1.., required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// File to write the kept questions to, in the format of `--data`.
    #[arg(long, alias = "out", value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArgs,
    /// EgoSchema's answer file [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// Number of completions per question.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) tries: usize,
    /// Drop a question with at least K correct completions [default: three quarters of `--tries`, rounded up].
    #[arg(long, value_name = "K", value_parser = at_least_one)]
    pub(crate) drop_at: Option<usize>,
    /// Use only the first N questions [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) blind: BlindModelArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

impl FilterArgs {
    /// The questions.
    pub(crate) fn questions(&self) -> QuestionSource {
        let BenchmarkArgs { benchmark, prompt } = self.benchmark.clone();
        QuestionSource {
            answers: self.answers.clone(),
            limit: self.limit,
            benchmark,
            prompt: prompt.prompt,
            ..QuestionSource::files(DataFiles::new(self.data.clone()))
        }
    }

    /// How the model sees the images and videos; `None` without `--direct`.
    ///
    /// # Errors
    /// The frames of videos are invalid.
    pub(crate) fn direct(&self) -> Result<Option<Direct>, Usage> {
        let LimitArgs { video_dir, max_frames, max_pixels } = self.limits.clone();
        Direct::new(&self.direct, MediaLimits { video_dir, max_frames, max_pixels })
    }
}

/// Limits of the images and videos that the model sees.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Images and videos")]
pub(crate) struct LimitArgs {
    /// Directory of the videos [default: as the questions say, else `videos` beside the data file].
    #[arg(long, value_name = "DIR", requires = "direct")]
    pub(crate) video_dir: Option<PathBuf>,
    /// Maximum number of frames with `--fps` [default: 768].
    #[arg(long, value_name = "N", requires = "direct")]
    pub(crate) max_frames: Option<usize>,
    /// Downscale larger images to this many pixels [default: the model's image processor decides].
    #[arg(long, value_name = "PIXELS", requires = "direct", value_parser = at_least_one)]
    pub(crate) max_pixels: Option<usize>,
}

/// The blind model, and where it runs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct BlindModelArgs {
    /// Model: a directory in Hugging Face layout, a GGUF file, a LoRA adapter, or a Hub ID: `org/name`, or for a GGUF
    /// file `org/name/file.gguf` or `org/name:Q4_K_M`; with `--base-url`, its name on the servers.
    #[arg(long, aliases = ["model-path", "api-model"], value_name = "MODEL")]
    pub(crate) model: String,
    /// Revision of the model on the Hub: a branch, tag or commit.
    #[arg(long, value_name = "REV", conflicts_with = "base_url")]
    pub(crate) revision: Option<String>,
    /// Precision of matrix multiplications; `bf16` is faster on GPUs and on most CPUs with AVX-512 BF16 [default: f32
    /// on a CPU, bf16 on a GPU].
    #[arg(long, value_enum, conflicts_with = "base_url")]
    pub(crate) precision: Option<PrecisionName>,
    /// Device to run on [default: cpu].
    #[arg(long, conflicts_with = "base_url")]
    pub(crate) device: Option<DeviceName>,
    /// Batch size in questions; completions are written to disk after each batch [default: 16].
    #[arg(long, value_name = "N", conflicts_with = "base_url", value_parser = at_least_one)]
    pub(crate) batch: Option<usize>,
}

/// Sampling parameters of the completions.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct SamplingArgs {
    /// Sampling temperature; 0 is greedy, which requires `--tries 1`.
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub(crate) temperature: f64,
    /// Maximum number of tokens to generate per completion.
    #[arg(long, visible_alias = "max-tokens", value_name = "N", default_value_t = 512)]
    pub(crate) max_new_tokens: usize,
    /// Random seed for sampling.
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    pub(crate) seed: u64,
    /// System prompt [default: one that asks for the most likely option; with `--direct`, chosen by what the model sees].
    #[arg(long, value_name = "TEXT")]
    pub(crate) system_prompt: Option<String>,
    /// With `--direct`, system prompt by name, as in training [default: auto].
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        requires = "direct",
        conflicts_with = "system_prompt"
    )]
    pub(crate) system_prompt_preset: Option<SystemPromptPresetName>,
}

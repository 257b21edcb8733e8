//! Arguments of `embodied-r perceive`.

use std::path::PathBuf;

use clap::ValueEnum;

/// Turn videos into text with a captioner.
///
/// Writes each data file again with every question replaced by the prompt that holds the captions,
/// and beside it `NAME.captions.jsonl`, one line per question. A run that was stopped goes on where
/// it was; questions that failed are tried again.
#[derive(Debug, clap::Args)]
pub(crate) struct PerceiveArgs {
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
    /// Folder of the videos [default: where the questions say, else `videos` beside the data file].
    #[arg(long, value_name = "DIR")]
    pub(crate) folder_path: Option<PathBuf>,
    /// Folder of the outputs.
    #[arg(long, value_name = "DIR", default_value = "results/inter")]
    pub(crate) save_path: PathBuf,
    /// Who makes the captions.
    #[arg(long, value_enum, default_value_t = Backend::Openai)]
    pub(crate) backend: Backend,
    /// Questions in work at the same time, and requests on their way.
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
    pub(crate) openai: OpenAiArgs,
    #[command(flatten)]
    pub(crate) scene: SceneArgs,
}

/// Who makes the captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// A vision-language model behind an OpenAI-compatible API.
    Openai,
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

/// For `--backend openai`. What has a default there is `None` here, so that it can be told whether
/// it was typed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "With --backend openai")]
pub(crate) struct OpenAiArgs {
    /// Name of the model [default: Qwen/Qwen2.5-VL-72B-Instruct].
    #[arg(long, value_name = "NAME")]
    pub(crate) model_path: Option<String>,
    /// Base URLs of servers with that model; requests are spread over them
    /// [default: http://localhost:8000/v1].
    #[arg(long, num_args = 1.., value_name = "URL")]
    pub(crate) base_url: Vec<String>,
    /// Environment variable that holds the API key [default: OPENAI_API_KEY].
    #[arg(long, value_name = "NAME")]
    pub(crate) api_key_env: Option<String>,
    /// Longest time for one request, in seconds [default: 300].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout_s: Option<std::time::Duration>,
    /// How often a request is sent again [default: 5].
    #[arg(long, value_name = "N")]
    pub(crate) max_retries: Option<u32>,
    /// Sampling temperature [default: the server's].
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    /// Most tokens of a caption [default: the server's].
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Longest side of the pictures, in pixels [default: 1280].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(28..))]
    pub(crate) image_side: Option<u32>,
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

pub(super) fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be a number of seconds above 0".to_owned()),
    }
}

//! Arguments of `embodied-r eval`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::model::ModelArgs;
use super::video::VideoArgs;

/// Score a model, or given predictions, by a benchmark's own protocol.
///
/// With `--model` the questions of `--data` are answered first, as `infer` does it. They may be those
/// of EgoSchema (`questions.json` with `subset_answers.json`; the questions without a published
/// answer are left out) or of MVBench (`egocentric_navigation.json`), which Embodied-R is scored on
/// out of its domain: perceived by `perceive`, or on the way.
///
/// A prediction that is missing counts as wrong, but for `urbanvideo-bench`, whose official script
/// leaves it out. Questions of categories that the protocol does not score are left out. Both are
/// reported: below the table, or as warnings with `--json`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The benchmark's rules [default: those of the one benchmark out of domain that all questions are
    /// of, else embodied-r].
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<ProtocolName>,
    /// Print the scores as JSON instead of Markdown.
    #[arg(long)]
    pub(crate) json: bool,
    /// What to call the row beside the published ones [default: the name of the source].
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Folder to write `PROTOCOL.json` and `PROTOCOL.md` into as well, and a model's answers to
    /// `answers.json`.
    #[arg(long, value_name = "DIR")]
    pub(crate) save_path: Option<PathBuf>,
}

/// Where the answers come from: a file of them, or a model and questions.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// Answers given: the official JSON with `content`, whose `<answer>` tag is read, or JSONL of
    /// `id`, `category`, `solution` and `prediction`, which is read as it is.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "model", "data", "folder_path", "scenes", "base_url", "captioner",
    ])]
    pub(crate) predictions: Option<PathBuf>,
    /// Questions to answer with `--model`: the official JSON, EgoSchema's or MVBench's, or the folder
    /// of one of the latter.
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(crate) data: Option<PathBuf>,
    /// File of EgoSchema's answers [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) answers: Option<PathBuf>,
    /// Answer only the first so many questions.
    #[arg(long, value_name = "N", requires = "data")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) video: VideoArgs,
}

/// A benchmark's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProtocolName {
    /// Embodied-R's eight multiple-choice tasks, mean over questions.
    EmbodiedR,
    /// VSI-Bench's eight tasks with its numeric ones, mean over tasks.
    VsiBench,
    /// UrbanVideo-Bench's sixteen tasks, mean over questions.
    #[value(name = "urbanvideo-bench")]
    UrbanVideoBench,
    /// EgoSchema's 500 questions with published answers.
    #[value(name = "egoschema")]
    EgoSchema,
    /// MVBench's 200 questions of egocentric navigation.
    #[value(name = "mvbench")]
    MvBench,
}

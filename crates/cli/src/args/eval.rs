//! Arguments of `embodied-r eval`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::model::ModelArgs;

/// Score a model, or given predictions, by a benchmark's own protocol.
///
/// With `--model` the questions of `--data` are answered first, as `infer` does it.
///
/// A prediction that is missing counts as wrong, but for `urbanvideo-bench`, whose official script
/// leaves it out. Questions of categories that the protocol does not score are left out. Both are
/// reported: below the table, or as warnings with `--json`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The benchmark's rules.
    #[arg(long, value_enum, default_value_t = ProtocolName::EmbodiedR)]
    pub(crate) protocol: ProtocolName,
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "data"])]
    pub(crate) predictions: Option<PathBuf>,
    /// Questions to answer with `--model`: the official JSON, perceived.
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(crate) data: Option<PathBuf>,
    /// Answer only the first so many questions.
    #[arg(long, value_name = "N", requires = "data")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
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
}

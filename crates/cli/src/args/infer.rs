//! Arguments of `embodied-r infer`.

use std::path::PathBuf;

use super::model::ModelArgs;

/// Answer a file of questions.
///
/// Reads the official JSON and writes it with the model's output in `content`; all other fields pass
/// through. Stopped at any moment, the same command goes on where it was. Captions of questions that
/// begin with `<video>` stay in a folder beside the output, `FILE.perceived`, for the next time.
#[derive(Debug, clap::Args)]
pub(crate) struct InferArgs {
    /// Questions: a JSON list of records with `question`.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Folder of the videos, for questions that begin with `<video>`.
    #[arg(long, value_name = "DIR")]
    pub(crate) folder_path: Option<PathBuf>,
    /// Scene files to perceive such questions with, in place of a captioning service.
    #[arg(long, value_name = "DIR")]
    pub(crate) scenes: Option<PathBuf>,
    /// Captioning service to perceive such questions with, such as `http://localhost:8000/v1`.
    #[arg(long, value_name = "URL", conflicts_with = "scenes")]
    pub(crate) base_url: Vec<String>,
    /// The captioning service's model.
    #[arg(long, value_name = "NAME", requires = "base_url")]
    pub(crate) captioner: Option<String>,
    /// Answer only the first so many questions.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

//! Arguments of `embodied-r infer`.

use std::path::PathBuf;

use super::model::ModelArgs;
use super::video::VideoArgs;

/// Answer a file of questions.
///
/// Reads the official JSON and writes it with the model's output in `content`; all other fields pass
/// through. The sets of EgoSchema and MVBench (egocentric navigation) are read as well, and written
/// in the official form. Stopped at any moment, the same command goes on where it was. Captions of
/// questions that are not perceived yet stay in a folder beside the output, `FILE.perceived`, for
/// the next time.
#[derive(Debug, clap::Args)]
pub(crate) struct InferArgs {
    /// Questions: a JSON list of records with `question`, EgoSchema's `questions.json`, or MVBench's
    /// `egocentric_navigation.json`.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// File of EgoSchema's answers [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// Answer only the first so many questions.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) video: VideoArgs,
}

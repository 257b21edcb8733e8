//! Options of `embodied-r infer`.

use std::path::PathBuf;

use embodied_r_data::DataFiles;

use super::benchmark::BenchmarkArgs;
use super::direct::DirectArgs;
use super::reasoner::ReasonerArgs;
use super::video::VideoArgs;
use crate::questions::QuestionSource;

/// Answer a file of questions.
///
/// Writes the questions in Embodied-R's JSON with the completions in `content`; other fields pass through. Interrupted
/// runs keep finished batches, or with `--base-url` finished questions; run the command again to resume.
///
/// With a captioner, questions without captions are captioned first, as `perceive` does; the captions are kept beside
/// the output, in `OUTPUT.perceived`. A local captioner has the device and the precision of a local model.
///
/// With `--direct`, a vision-language model sees the images and video frames of the questions instead, and `--data` may
/// have any format that `train` reads; the output is in Embodied-R's JSON with `images` and `videos`.
#[derive(Debug, clap::Args)]
pub(crate) struct InferArgs {
    /// Questions to answer: Embodied-R's JSON, with or without captions, or the file or directory of EgoSchema
    /// (`questions.json`) or MVBench (`egocentric_navigation.json`). Takes files, folders of shards and globs.
    #[arg(long, alias = "input", num_args = 1.., required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// File to write the answers to.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) benchmark: BenchmarkArgs,
    /// EgoSchema's answer file [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// Answer only the first N questions [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) reasoner: ReasonerArgs,
    #[command(flatten)]
    pub(crate) video: VideoArgs,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

impl InferArgs {
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
}

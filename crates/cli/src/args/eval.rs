//! Options of `embodied-r eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use embodied_r_data::DataFiles;
use embodied_r_eval::Benchmark;

use super::benchmark::{PromptArgs, benchmark};
use super::direct::DirectArgs;
use super::reasoner::ReasonerArgs;
use super::value::at_least_one;
use super::video::VideoArgs;
use crate::questions::{Annotations, QuestionSource};

/// Evaluate a model or saved predictions by a benchmark's rules.
///
/// With `--model`, the questions in `--data` are answered first, as `infer` does. EgoSchema and MVBench's egocentric
/// navigation, the out-of-domain benchmarks of Embodied-R, are supported too; EgoSchema's questions without a published
/// answer are skipped. Caption their videos with `perceive` beforehand, or on the fly.
///
/// A record of `--predictions` without a prediction counts as wrong, except under `urbanvideo-bench`, whose official script
/// skips it. A question of `--data` without an answer always counts as wrong, also if its prompt exceeds the model's context
/// length. A question in two records is an error. Questions in categories that the benchmark does not score are skipped. All
/// of this is reported below the table, or as warnings with `--json`; scores over a part of a benchmark are marked in the
/// table of published results.
///
/// With `--folds N`, every fold of a cross-validation is scored, and the report has the mean over the folds and the sample
/// standard deviation of every score. `{fold}` in `--model` or `--predictions` takes a model or a predictions file for each
/// fold; a `--model` without it is evaluated on all of them.
///
/// With `--pass-at`, several completions per question are sampled and scored by pass@k, the probability that at least one
/// of k samples is correct. A sample is correct if it has the full score: the right option, or for numeric questions a
/// mean relative accuracy of 1 (an error of at most 5 %). pass@k is a mean over questions; all other scores are means
/// over samples.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Print the scores as JSON instead of Markdown.
    #[arg(long, display_order = 103)]
    pub(crate) json: bool,
    /// Label of this model's row in the table of published results [default: name of the model or predictions file].
    #[arg(long, value_name = "TEXT", display_order = 102)]
    pub(crate) name: Option<String>,
    /// Directory for `BENCHMARK.json`, `.md`, `.html` (answers that point, drawn), and the model's `answers.json`, or its
    /// `samples.jsonl` with `--pass-at`; with `--folds`, completions are in `fold-0` and so on in it [default: scores are only
    /// printed].
    #[arg(long, alias = "save-path", value_name = "DIR", display_order = 101)]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) folds: FoldArgs,
    #[command(flatten)]
    pub(crate) pass_at: PassAtArgs,
}

/// Several samples per question.
#[derive(Debug, Args)]
#[command(next_help_heading = "pass@k")]
pub(crate) struct PassAtArgs {
    /// Report pass@k for these K, such as `1,8`, with the unbiased estimator of Chen et al. (2021); `--temperature` is then
    /// 1 by default. With `--predictions`, the file is a `samples.jsonl`.
    #[arg(long = "pass-at", value_name = "K", value_delimiter = ',', value_parser = at_least_one)]
    pub(crate) ks: Vec<usize>,
    /// Number of samples per question; more than K make the estimate more precise [default: the largest K].
    #[arg(
        long,
        value_name = "N",
        requires = "ks",
        conflicts_with = "predictions",
        value_parser = at_least_one
    )]
    pub(crate) num_samples: Option<usize>,
}

/// Cross-validation.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cross-validation")]
pub(crate) struct FoldArgs {
    /// Number of folds, as for `preprocess --folds`. `{fold}` in `--data`, `--predictions` and `--model` stands for the
    /// fold, from 0 to N-1, as in `--folds 5 --data 'fold-{fold}/test_data.json'`.
    #[arg(long, value_name = "N", value_parser = at_least_two)]
    pub(crate) folds: Option<usize>,
}

fn at_least_two(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        1 => Err("must be at least 2".to_owned()),
        n => Ok(n),
    }
}

/// Where the predictions come from: a file, or a model and questions.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// Benchmark whose rules score the answers; `embodied-r benchmarks` lists them [default: `egoschema` or `mvbench` if all questions are from that benchmark,
    /// `robot-r1` if all are of its kinds, `accuracy` if no benchmark has their categories, else `embodied-r`].
    #[arg(long, alias = "protocol", value_name = "NAME", value_parser = benchmark(), hide_possible_values = true, display_order = 100)]
    pub(crate) benchmark: Option<&'static Benchmark>,
    /// Scorer of the benchmark (`embodied-r benchmarks`), or `all` for a table of all [default: its first one].
    #[arg(long, value_name = "NAME", requires = "benchmark", display_order = 100)]
    pub(crate) scorer: Option<String>,
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Score these predictions instead of running a model: Embodied-R's JSON with `content`, whose `<answer>` tag is
    /// parsed; JSONL of `id` and `prediction`, which is taken verbatim, with `category` and `solution` unless `--data` has
    /// them; lmms-eval's samples; or VLMEvalKit's `.tsv`. With `--data`, its questions and reference answers count.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "model", "video_dir", "scenes", "captioner", "direct",
    ])]
    pub(crate) predictions: Option<PathBuf>,
    /// Questions to answer with `--model`, or that `--predictions` should answer: Embodied-R's JSON, with or without captions,
    /// the folder of the `--benchmark`, or the file or directory of EgoSchema or MVBench.
    ///
    /// Takes files, folders of shards and globs.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// EgoSchema's answer file [default: `subset_answers.json` beside its questions].
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) answers: Option<PathBuf>,
    /// Use only the first N questions [default: all].
    #[arg(long, value_name = "N", requires = "data")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) reasoner: ReasonerArgs,
    #[command(flatten)]
    pub(crate) video: VideoArgs,
    #[command(flatten)]
    pub(crate) direct: DirectArgs,
}

impl Source {
    /// The questions, if they are given.
    pub(crate) fn questions(&self) -> Option<QuestionSource> {
        let data = DataFiles::new(self.data.clone());
        (!self.data.is_empty()).then(|| QuestionSource {
            answers: self.answers.clone(),
            limit: self.limit,
            benchmark: self.benchmark,
            prompt: self.prompt.prompt.clone(),
            ..QuestionSource::files(data)
        })
    }

    /// The benchmark's questions in its own layout, if `--data` has them.
    ///
    /// # Errors
    /// As [`QuestionSource::annotations`].
    pub(crate) fn annotations(&self) -> anyhow::Result<Option<Annotations>> {
        match self.questions() {
            Some(questions) => questions.annotations(self.direct.reader()),
            None => Ok(None),
        }
    }

    /// The folder of the images that the data names by relative paths: by default that of its first file.
    pub(crate) fn image_folder(&self) -> PathBuf {
        let beside = || Some(self.data.first()?.parent()?.to_owned());
        self.direct.image_dir.clone().or_else(beside).unwrap_or_default()
    }

    /// The name of the model or of the predictions file.
    pub(crate) fn name(&self) -> String {
        let model = self.reasoner.model.model.as_deref();
        let name = match (&self.predictions, model) {
            (Some(path), _) => path.file_stem().unwrap_or(path.as_os_str()),
            (None, Some(model)) if self.reasoner.api.is_given() => return model.to_owned(),
            // Not the stem: a version such as 2.5 is no extension.
            (None, Some(model)) => {
                let name = model.strip_suffix(".gguf").unwrap_or(model);
                Path::new(name).file_name().unwrap_or(name.as_ref())
            }
            (None, None) => "".as_ref(),
        };
        name.to_string_lossy().into_owned()
    }
}

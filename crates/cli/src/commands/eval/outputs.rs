//! What is scored: a model's answers or samples, from a file or from the model.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use embodied_r_data::multimodal::SampleSet;
use embodied_r_data::question_set::{QuestionSet, read_question_set};
use embodied_r_data::{Progress as _, Question};
use embodied_r_eval::{
    Answered, Benchmark, Error, Matched, Prediction, Protocol, Report, SampledQuestion,
    match_questions, predictions, samples, score, score_samples,
};

use super::folds;
use super::pass_at::{SamplingPlan, explain_samples};
use crate::args::eval::{EvalArgs, Source};
use crate::args::reasoner::ReasonerArgs;
use crate::asked::Asked;
use crate::commands::infer::perceived::{self, CaptioningPlan};
use crate::commands::infer::{self, Journal};
use crate::direct::Direct;
use crate::exit::{self, Usage};
use crate::progress::Bar;
use crate::questions::QuestionSource;
use crate::reasoner::Reasoner;

/// Name of the file of a model's answers.
const ANSWERS: &str = "answers.json";
/// Name of the file of a model's samples.
const SAMPLES: &str = "samples.jsonl";

/// The outputs of a model for one question set.
pub(super) enum Outputs {
    /// One for each question.
    Predictions(Vec<Prediction>),
    /// Several for each question, with the sampling temperature if it is known.
    Samples(Vec<SampledQuestion>, Option<f64>),
}

impl Outputs {
    /// The category of each question.
    pub(super) fn categories(&self) -> Vec<&str> {
        match self {
            Self::Predictions(all) => all.iter().map(|one| one.category.as_str()).collect(),
            Self::Samples(all, _) => all.iter().map(|one| one.category.as_str()).collect(),
        }
    }

    /// The outputs for `questions`, with their reference answers; questions without an output count as wrong.
    fn of(self, questions: &[Question]) -> anyhow::Result<Self> {
        Ok(match self {
            Self::Predictions(all) => Self::Predictions(matched(questions, all)?),
            Self::Samples(all, temperature) => Self::Samples(matched(questions, all)?, temperature),
        })
    }

    /// Their scores, with pass@k for these `ks`.
    pub(super) fn score(&self, protocol: Protocol, ks: &[usize]) -> anyhow::Result<Report> {
        if let Self::Predictions(all) = self
            && all.iter().all(Prediction::is_bare)
        {
            return Err(explain(Error::UnknownQuestions));
        }
        match self {
            Self::Predictions(predictions) => score(protocol, predictions),
            Self::Samples(sampled, temperature) => {
                score_samples(protocol, sampled, ks, *temperature)
            }
        }
        .map_err(explain)
    }
}

/// The records of `questions`; prints what does not match.
fn matched<T: Answered>(questions: &[Question], records: Vec<T>) -> anyhow::Result<Vec<T>> {
    let Matched { outputs, others, other_solutions } =
        match_questions(questions, records).map_err(explain)?;
    let bar = Bar::default();
    if others > 0 {
        bar.warn(&format!("records of questions that are not in `--data` are left out: {others}"));
    }
    if other_solutions > 0 {
        bar.warn(&format!(
            "records whose reference answer is not that of `--data`, which is used: {other_solutions}"
        ));
    }
    Ok(outputs)
}

/// The outputs to score: one for each fold, or the only ones.
pub(super) fn all(args: &EvalArgs) -> anyhow::Result<Vec<Outputs>> {
    let EvalArgs { source, pass_at, .. } = args;
    let has_model = source.reasoner.model.model.is_some() && !source.data.is_empty();
    if source.predictions.is_none() && !has_model {
        let what = "nothing to score: give `--predictions FILE`, or `--model` and `--data`";
        return Err(Usage(what.into()).into());
    }
    let is_sampled = !pass_at.ks.is_empty();
    let plan = match is_sampled && source.predictions.is_none() {
        true => {
            Some(SamplingPlan::new(pass_at, source.reasoner.model.decoding.sampling.temperature)?)
        }
        false => None,
    };
    let mut sources = folds::sources(source, args.folds.folds)?;
    let is_folded = args.folds.folds.is_some();
    if let Some(annotations) = source.annotations()? {
        for source in &mut sources {
            let decoding = &mut source.reasoner.model.decoding;
            *decoding = decoding.clone().with_prompt(Some(annotations.prompt));
        }
    }
    match source.predictions {
        Some(_) => read(&sources, is_sampled, is_folded),
        None => {
            let request =
                Request { plan: plan.as_ref(), benchmark: args.source.benchmark, is_folded };
            generate(&sources, &request, args.output.as_deref())
        }
    }
}

/// Reads predictions or samples.
fn read(sources: &[Source], is_sampled: bool, is_folded: bool) -> anyhow::Result<Vec<Outputs>> {
    let paths: Vec<&Path> =
        sources.iter().flat_map(|source| source.predictions.as_deref()).collect();
    let of = |(fold, path): (usize, &&Path)| {
        let outputs = match is_sampled {
            true => samples::read(path)
                .map(|sampled| Outputs::Samples(sampled, None))
                .map_err(explain_samples),
            false => predictions::read(path).map(Outputs::Predictions).map_err(explain),
        };
        of_fold(outputs, is_folded.then_some(fold))
    };
    let all: Vec<Outputs> = paths.iter().enumerate().map(of).collect::<anyhow::Result<_>>()?;
    let Some(sets) = question_sets(sources, perceived::read)? else {
        // Other formats have no scenes to check.
        let sets: Option<Vec<QuestionSet>> =
            paths.iter().map(|path| read_question_set(path, None).ok()).collect();
        return match sets.filter(|_| is_folded) {
            Some(sets) => folds::check(&sets).map(|()| all).map_err(Into::into),
            None => Ok(all),
        };
    };
    if is_folded {
        folds::check(&sets)?;
    }
    let all = all.into_iter().zip(&sets).enumerate();
    all.map(|(fold, (outputs, set))| of_fold(outputs.of(&set.questions), is_folded.then_some(fold)))
        .collect()
}

/// Reads questions.
type ReadQuestions = fn(&QuestionSource) -> anyhow::Result<QuestionSet>;

/// The question set of each source, if `--data` is given.
fn question_sets(
    sources: &[Source],
    read: ReadQuestions,
) -> anyhow::Result<Option<Vec<QuestionSet>>> {
    let read = |source: &Source| Some(read(&source.questions()?));
    sources.iter().map(read).collect::<Option<anyhow::Result<_>>>().transpose()
}

/// What is asked of a model.
struct Request<'a> {
    /// Samples instead of answers.
    plan: Option<&'a SamplingPlan>,
    benchmark: Option<&'static Benchmark>,
    is_folded: bool,
}

impl Request<'_> {
    /// Checks, before a model answers anything, that the benchmark can score the questions of each source: it scores them
    /// without answers.
    fn check<'q, Q: Iterator<Item = &'q Question>>(
        &self,
        sources: impl Iterator<Item = Q>,
    ) -> anyhow::Result<()> {
        let sources: Vec<Vec<Prediction>> =
            sources.map(|questions| questions.map(Prediction::unanswered).collect()).collect();
        let categories = sources.iter().flatten().map(|question| question.category.as_str());
        let benchmark = super::benchmark(self.benchmark, categories.clone());
        super::warn_of_unknown_categories(self.benchmark, benchmark, categories);
        for (fold, unanswered) in sources.iter().enumerate() {
            if !unanswered.is_empty() {
                let scored = score(benchmark.into(), unanswered).map_err(explain);
                of_fold(scored, self.is_folded.then_some(fold))?;
            }
        }
        Ok(())
    }
}

/// Answers the questions of all sources. Finished work is kept until all are done.
fn generate(
    sources: &[Source],
    request: &Request<'_>,
    save_path: Option<&Path>,
) -> anyhow::Result<Vec<Outputs>> {
    let folder = Folder::new(save_path)?;
    let Some(Source { video, direct, .. }) = sources.first() else { return Ok(Vec::new()) };
    let (all, reasoners) = match video.direct(direct)? {
        Some(direct) => seen(sources, request, direct)?,
        None => captioned(sources, request, &folder)?,
    };
    let (mut outputs, mut journals) = (Vec::new(), Vec::<Journal>::new());
    // A model is freed after its last fold.
    for (fold, (asked, reasoner)) in all.into_iter().zip(reasoners).enumerate() {
        let folder = match request.is_folded {
            true => folder.path().join(format!("fold-{fold}")),
            false => folder.path().to_owned(),
        };
        if request.is_folded {
            eprintln!("fold {fold} of {}: {} questions", sources.len(), asked.questions.len());
        }
        let (output, journal) = match request.plan {
            None => answer(asked, &reasoner, folder.join(ANSWERS))?,
            Some(plan) => {
                let output = folder.join(SAMPLES);
                let (completions, journal) =
                    infer::sample(&asked, &reasoner, plan.samples, &output)?;
                let prompt = asked.prompt.map(str::to_owned);
                let questions = asked.questions.iter().zip(completions);
                let sampled = questions.map(|(question, of)| SampledQuestion {
                    prompt: prompt.clone(),
                    ..SampledQuestion::new(question, of)
                });
                let left_out = asked.left_out.iter().map(SampledQuestion::unanswered);
                let sampled: Vec<SampledQuestion> = sampled.chain(left_out).collect();
                samples::write(&output, &sampled)?;
                (Outputs::Samples(sampled, Some(plan.temperature)), journal)
            }
        };
        outputs.push(output);
        journals.push(journal);
    }
    journals.into_iter().try_for_each(Journal::remove)?;
    Ok(outputs)
}

/// The questions of all sources as text with captions, and the model of each.
fn captioned(
    sources: &[Source],
    request: &Request<'_>,
    folder: &Folder<'_>,
) -> anyhow::Result<(Vec<Asked>, Vec<Rc<Reasoner>>)> {
    let sets = question_sets(sources, perceived::read_text)?.unwrap_or_default();
    if request.is_folded {
        folds::check(&sets)?;
    }
    request.check(sets.iter().map(|set| set.questions.iter()))?;
    let Some(Source { video, reasoner, .. }) = sources.first() else {
        return Ok(Default::default());
    };
    let captioning = CaptioningPlan::new(sets, video, &reasoner.model.weights)?;
    if captioning.is_needed() && matches!(folder, Folder::Temporary(_)) {
        let what = "captioning the videos takes long: give `--output DIR` to keep the captions";
        return Err(Usage(what.into()).into());
    }
    // Fails on a missing model before the slow captioning.
    let reasoners = reasoners(sources, request.plan, None)?;
    // One place for the captions, so that `--pass-at` and answers share them.
    let all = captioning.run(&perceived::folder(&folder.path().join(ANSWERS)))?;
    Ok((all.into_iter().map(Asked::text).collect(), reasoners))
}

/// The questions of all sources with images and videos, and the model of each, which sees them.
fn seen(
    sources: &[Source],
    request: &Request<'_>,
    direct: Direct,
) -> anyhow::Result<(Vec<Asked>, Vec<Rc<Reasoner>>)> {
    let annotations =
        sources.iter().map(Source::annotations).collect::<anyhow::Result<Vec<_>>>()?;
    let first = annotations.iter().flatten().next();
    let mut direct = direct.with_frames_of(first);
    if first.is_some() {
        // They count as wrong.
        direct = direct.skipping_bad_records();
    }
    // Fails on a text model before the questions are read.
    let reasoners = reasoners(sources, request.plan, Some(&direct))?;
    let read = |source: &Source| Some(direct.read(&source.questions()?));
    let sets: Vec<SampleSet> = sources.iter().filter_map(read).collect::<anyhow::Result<_>>()?;
    if request.is_folded {
        folds::check_scenes(&sets)?;
    }
    request.check(sets.iter().map(SampleSet::questions))?;
    let files: Vec<Vec<PathBuf>> = sets.iter().map(|set| set.files.clone()).collect();
    let asked = sets.into_iter().zip(&reasoners).map(|(set, reasoner)| reasoner.lay_out(set));
    let asked: Vec<Asked> = asked.collect::<anyhow::Result<_>>()?;
    if request.is_folded {
        folds::check_images(&files, &asked)?;
    }
    let asked = asked.into_iter().zip(&annotations).map(|(asked, of)| match of {
        Some(of) => asked.of_annotations(of),
        None => Ok(asked),
    });
    Ok((asked.collect::<anyhow::Result<_>>()?, reasoners))
}

fn answer(
    asked: Asked,
    reasoner: &Reasoner,
    output: PathBuf,
) -> anyhow::Result<(Outputs, Journal)> {
    let questions = [asked.questions.as_slice(), &asked.left_out].concat();
    let (_, journal) = infer::answer_file(asked, reasoner, &output)?;
    let predictions = predictions::read(&output).map_err(explain)?;
    Ok((Outputs::Predictions(predictions).of(&questions)?, journal))
}

/// The model of each source; equal ones are one model, which is loaded once.
fn reasoners(
    sources: &[Source],
    plan: Option<&SamplingPlan>,
    direct: Option<&Direct>,
) -> anyhow::Result<Vec<Rc<Reasoner>>> {
    let mut reasoners: Vec<Rc<Reasoner>> = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        let model = |source: &Source| source.reasoner.model.model.clone();
        let equal = sources[..index].iter().position(|other| model(other) == model(source));
        reasoners.push(match equal {
            Some(other) => Rc::clone(&reasoners[other]),
            None => {
                let mut args: ReasonerArgs = source.reasoner.clone();
                if let Some(plan) = plan {
                    args.model.decoding.sampling.temperature = Some(plan.temperature);
                }
                Rc::new(Reasoner::new(&args, direct)?)
            }
        });
    }
    Ok(reasoners)
}

/// Where completions and captions are written: the folder of `--output`, or a temporary one.
enum Folder<'a> {
    Kept(&'a Path),
    Temporary(tempfile::TempDir),
}

impl<'a> Folder<'a> {
    fn new(save_path: Option<&'a Path>) -> anyhow::Result<Self> {
        match save_path {
            Some(path) => Ok(Self::Kept(path)),
            None => Ok(Self::Temporary(tempfile::tempdir()?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// `result`, whose error names the fold if there is one.
pub(super) fn of_fold<T>(result: anyhow::Result<T>, fold: Option<usize>) -> anyhow::Result<T> {
    match fold {
        Some(fold) => result.with_context(|| format!("fold {fold}")),
        None => result,
    }
}

/// Adds hints.
fn explain(error: Error) -> anyhow::Error {
    let advice = match &error {
        Error::NoPredictions { .. } => {
            "`embodied-r infer` writes predictions; a `samples.jsonl` is scored with `--pass-at`"
        }
        Error::Duplicate { .. } => "remove the repeated records",
        Error::OtherQuestionSet { .. } => {
            "give the questions that were answered with `--data`; records are matched by `video_id` and `Question_id` (or \
             `id`)"
        }
        Error::NothingToScore { .. } => {
            "choose the benchmark with `--benchmark`; `accuracy` scores questions of any category"
        }
        Error::Records(embodied_r_rewards::Error::Field { .. }) => {
            "records need `question_category`, `answer` and `content`, or `id`, `category`, \
             `solution` and `prediction`"
        }
        _ => return error.into(),
    };
    exit::hint(error.to_string(), advice)
}

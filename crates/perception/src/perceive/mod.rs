//! Captions for files of questions, with a log to resume from.
//!
//! Each data file `NAME.json` becomes `NAME.json` in the folder of the outputs, with every
//! `question` replaced by the prompt that holds the captions, and `NAME.captions.jsonl`, one line
//! per finished question. The log is written as the work goes on: a run that is killed loses
//! nothing that was finished, and the next one does only what is missing or failed.

mod input;
mod log;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use embodied_r_data::{Progress, Question};
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};

use crate::captioner::{Asked, Caption, Captioner, Decoders, Footage, prompt};
use crate::error::{Error, Result};
use crate::keyframes;
use input::Input;
use log::{CaptionLog, Outcome};

pub use input::{ORIGINAL_QUESTION, video_path};

/// So many failures are shown as they happen; the log holds all of them.
const SHOWN_FAILURES: usize = 10;

/// What to do with captions that an earlier run made with other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Changed {
    /// Stop before anything is done, and say what differs.
    #[default]
    Refuse,
    /// Make them anew.
    Redo,
}

/// Where questions and videos come from and outputs go.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data files in the official JSON form, or as EgoSchema or MVBench publish theirs.
    pub data_paths: Vec<PathBuf>,
    /// File of EgoSchema's answers; `None` looks beside its questions.
    pub answers: Option<PathBuf>,
    /// Folder of the videos; `None` looks where the questions say, and beside the data file.
    pub folder_path: Option<PathBuf>,
    /// Folder of the outputs.
    pub save_path: PathBuf,
    /// Questions in work at the same time.
    pub concurrency: usize,
    /// At most so many questions of each file are captioned now; `None` means all.
    pub limit: Option<usize>,
    /// How key frames are chosen.
    pub keyframes: keyframes::Options,
    /// The longest side of the pictures that a model gets, in pixels; `None` leaves them as they are.
    pub image_side: Option<u32>,
    /// What to do with captions of other settings.
    pub changed: Changed,
}

/// What became of one data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The data file.
    pub data_path: PathBuf,
    /// The prompts.
    pub output: PathBuf,
    /// The log of captions.
    pub log: PathBuf,
    /// Questions in the data file, but for those without answers.
    pub questions: usize,
    /// Records that are left out, since their answers are not known.
    pub unanswered: usize,
    /// Those that an earlier run had finished.
    pub already: usize,
    /// Those that this run finished.
    pub finished: usize,
    /// Those that failed in this run.
    pub failed: usize,
    /// Of the failed ones, those that the annotations cannot support, by category.
    pub unsupported: BTreeMap<String, usize>,
}

impl Summary {
    /// Questions that neither failed nor are finished: beyond the limit.
    pub fn left(&self) -> usize {
        self.questions - self.already - self.finished - self.failed
    }
}

/// One data file on its way.
struct File {
    input: Input,
    log: CaptionLog,
    summary: Summary,
}

/// One question to caption.
struct Job {
    file: usize,
    question: usize,
    footage: Arc<Footage>,
}

/// Captions every question that has none yet, and writes the outputs.
///
/// A question that fails is recorded with its reason, and the run goes on.
///
/// # Errors
/// Data files or logs that cannot be read or written, outputs that would overwrite something,
/// captions of other settings, or FFmpeg missing. All but the last are found before any work.
pub async fn run(
    options: &Options,
    captioner: &dyn Captioner,
    progress: &dyn Progress,
) -> Result<Vec<Summary>> {
    options.keyframes.check()?;
    let settings = settings(options, captioner);
    let mut files = open(options, &settings, progress)?;
    let jobs = jobs(options, &files);
    progress.start("perceive", Some(jobs.len() as u64));
    let outcome = caption_all(options, captioner, &settings, &mut files, jobs, progress).await;
    progress.finish();
    let written = files.into_iter().map(close).collect();
    outcome.and(written)
}

/// What captions depend on beside the video and the question.
fn settings(options: &Options, captioner: &dyn Captioner) -> Map<String, Value> {
    let keyframes::Options { threshold, min_frames, max_frames, .. } = options.keyframes;
    let mut settings = captioner.settings();
    settings.insert("threshold".to_owned(), json!(threshold));
    settings.insert("min_frames".to_owned(), json!(min_frames));
    settings.insert("max_frames".to_owned(), json!(max_frames));
    settings.insert("image_side".to_owned(), json!(options.image_side));
    settings
}

fn open(
    options: &Options,
    settings: &Map<String, Value>,
    progress: &dyn Progress,
) -> Result<Vec<File>> {
    let inputs = input::read(&options.data_paths, options.answers.as_deref(), &options.save_path)?;
    let open = |input: Input| {
        let log = CaptionLog::open(&input.log, settings, options.changed, progress)?;
        let done = |question: &&Question| log.finished(question).is_some();
        let summary = Summary {
            data_path: input.data_path.clone(),
            output: input.output.clone(),
            log: input.log.clone(),
            questions: input.questions.len(),
            unanswered: input.unanswered,
            already: input.questions.iter().filter(done).count(),
            finished: 0,
            failed: 0,
            unsupported: BTreeMap::new(),
        };
        Ok(File { input, log, summary })
    };
    inputs.into_iter().map(open).collect()
}

/// What is to be done, the questions of a video one after another: when they are all done its
/// pictures are dropped.
fn jobs(options: &Options, files: &[File]) -> Vec<Job> {
    let decoders = Decoders::default();
    let mut order: HashMap<Option<PathBuf>, usize> = HashMap::new();
    let mut by_video: Vec<Vec<Job>> = Vec::new();
    for (file, File { input, log, .. }) in files.iter().enumerate() {
        let missing = input.questions.iter().enumerate();
        let missing = missing.filter(|(_, question)| log.finished(question).is_none());
        for (question, record) in missing.take(options.limit.unwrap_or(usize::MAX)) {
            let path = video_path(record, options.folder_path.as_deref(), &input.data_path);
            let key = path.as_ref().ok().cloned();
            let footage =
                || Arc::new(Footage::new(path, &options.keyframes, options.image_side, &decoders));
            // Questions without video have each a reason of their own.
            match key.as_ref().and_then(|_| order.get(&key)) {
                Some(&group) => {
                    let footage = Arc::clone(&by_video[group][0].footage);
                    by_video[group].push(Job { file, question, footage });
                }
                None => {
                    order.insert(key, by_video.len());
                    by_video.push(vec![Job { file, question, footage: footage() }]);
                }
            }
        }
    }
    by_video.into_iter().flatten().collect()
}

async fn caption_all(
    options: &Options,
    captioner: &dyn Captioner,
    settings: &Map<String, Value>,
    files: &mut [File],
    jobs: Vec<Job>,
    progress: &dyn Progress,
) -> Result<()> {
    let questions: Vec<Arc<[Question]>> =
        files.iter().map(|file| Arc::clone(&file.input.questions)).collect();
    let work = jobs.into_iter().map(|Job { file, question, footage }| {
        let record = &questions[file][question];
        async move {
            let result = captioner.caption(Asked::of(record), &footage).await;
            (file, record, result)
        }
    });
    let mut work = futures_util::stream::iter(work).buffer_unordered(options.concurrency.max(1));
    let mut tally = Tally::new();
    while let Some((file, question, result)) = work.next().await {
        let File { log, summary, .. } = &mut files[file];
        let outcome = match result {
            Ok(captions) => {
                summary.finished += 1;
                tally.add(&captions);
                Outcome::Frames(captions)
            }
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => {
                summary.failed += 1;
                if let Error::UnsupportedCategory { category, .. } = &error {
                    *summary.unsupported.entry(category.clone()).or_default() += 1;
                }
                tally.failed(&question.id(), &error, progress);
                Outcome::Error(with_causes(&error))
            }
        };
        log.append(question, settings, outcome)?;
        progress.advance(1);
        progress.message(&tally.message());
    }
    Ok(())
}

/// Writes a file's prompts, and its log in the order of the questions.
fn close(file: File) -> Result<Summary> {
    let File { input, log, summary } = file;
    let prompts = input.questions.iter().filter_map(|question| {
        let captions = log.finished(question)?;
        Some(input::perceived(question, prompt(captions, &question.question)))
    });
    input::write(&input.output, &prompts.collect::<Vec<_>>())?;
    log.close(&input.questions)?;
    Ok(summary)
}

/// What the run has done so far, for the line of progress.
struct Tally {
    started: Instant,
    frames: usize,
    tokens: u64,
    failed: usize,
    shown: usize,
    unsupported: BTreeSet<String>,
}

impl Tally {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            frames: 0,
            tokens: 0,
            failed: 0,
            shown: 0,
            unsupported: BTreeSet::new(),
        }
    }

    fn add(&mut self, captions: &[Caption]) {
        self.frames += captions.len();
        self.tokens += captions.iter().filter_map(|caption| caption.completion_tokens).sum::<u64>();
    }

    /// Tells of a failure, of a category that the annotations cannot support once.
    fn failed(&mut self, id: &str, error: &Error, progress: &dyn Progress) {
        self.failed += 1;
        if let Error::UnsupportedCategory { category, reason, .. } = error {
            if self.unsupported.insert(category.clone()) {
                progress.warn(&format!("the annotations cannot support `{category}`: {reason}"));
            }
            return;
        }
        self.shown += 1;
        match self.shown {
            ..=SHOWN_FAILURES => {
                progress.warn(&format!("question `{id}` failed: {}", with_causes(error)));
            }
            n if n == SHOWN_FAILURES + 1 => progress.warn("further failures are in the log only"),
            _ => {}
        }
    }

    fn message(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let mut text = format!("{} frames, {:.1}/s", self.frames, self.frames as f64 / seconds);
        if self.tokens > 0 {
            text.push_str(&format!(", {:.0} tokens/s", self.tokens as f64 / seconds));
        }
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        text
    }
}

/// An error's message with those of its causes that it does not repeat itself.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

/// The name of `path` without folder, for the names of outputs.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

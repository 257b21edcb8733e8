//! Captions for files of questions, with a log to resume from.
//!
//! Each data file `NAME.json` becomes `NAME.json` in the output folder, with every `question` replaced
//! by the prompt that holds the captions, and `NAME.captions.jsonl`, one line per finished question.
//! Each line is written as soon as its question is finished: an interrupted run loses no finished work,
//! and the next run resumes with missing and failed questions.
//!
//! Several machines run a [`Shard`] each, with its own output folder; [`merge`] combines them.

mod input;
mod log;
mod merge;
mod replicas;
mod shard;
mod stats;
mod work;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_data::{Progress, Question};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::captioner::{CaptionFault, Captioner, prompt};
use crate::error::Result;
use crate::keyframes;
use input::Input;
use log::{CaptionLog, ExpectedSettings};

pub use input::{ORIGINAL_QUESTION, video_path};
pub use merge::{MergeOptions, MergeReport, merge};
pub use replicas::{Replica, merge_replicas};
pub use shard::Shard;
pub use workload::PerceiveWorkload;

/// Whether captions are made per question or per video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Captions for each question, with its text in the prompt, as in the paper.
    #[default]
    Question,
    /// Captions for each video, shared by all of its questions.
    Video,
}

/// What to do with captions that an earlier run made with other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChangedSettings {
    /// Fail before any work, naming the difference.
    #[default]
    Reject,
    /// Caption again.
    Recaption,
}

/// Inputs, outputs and settings of a run.
#[derive(Debug, Clone)]
pub struct PerceiveOptions {
    /// Data files in the official JSON form, or as EgoSchema or MVBench publish theirs.
    pub data_paths: Vec<PathBuf>,
    /// File of EgoSchema's answers; `None` looks next to its questions.
    pub answers: Option<PathBuf>,
    /// Folder of the videos; `None` uses the paths in the questions, then `videos/` next to the data file.
    pub folder_path: Option<PathBuf>,
    /// Output folder.
    pub save_path: PathBuf,
    /// Concurrent questions.
    pub concurrency: usize,
    /// Maximum questions of each file to caption in this run; `None` means all.
    pub limit: Option<usize>,
    /// Key-frame selection.
    pub keyframes: keyframes::KeyFrameOptions,
    /// Longest side of the images given to a model, in pixels; `None` keeps the original size.
    pub image_side: Option<u32>,
    /// What to do with captions of other settings.
    pub changed_settings: ChangedSettings,
    /// Whether captions are made per question or per video.
    pub scope: Scope,
    /// The shard of the questions to caption; `None` means all.
    pub shard: Option<Shard>,
    /// This process's replica; `None` for a single process. Call [`merge_replicas`] after all replicas.
    pub replica: Option<Replica>,
    /// Once true, nothing more is started; requests in flight are awaited.
    pub stop: Arc<AtomicBool>,
}

impl PerceiveOptions {
    /// Captions for all questions of these files, one at a time; outputs go to `save_path`.
    pub fn new(data_paths: Vec<PathBuf>, save_path: PathBuf) -> Self {
        Self {
            data_paths,
            answers: None,
            folder_path: None,
            save_path,
            concurrency: 1,
            limit: None,
            keyframes: keyframes::KeyFrameOptions::default(),
            image_side: None,
            changed_settings: ChangedSettings::Reject,
            scope: Scope::Question,
            shard: None,
            replica: None,
            stop: Arc::default(),
        }
    }

    /// The folder that this run writes to: [`PerceiveOptions::save_path`], or the shard's folder in it.
    pub fn output_dir(&self) -> PathBuf {
        match self.shard {
            Some(shard) => shard.folder(&self.save_path),
            None => self.save_path.clone(),
        }
    }

    /// The folder of this process's logs: the output folder, or the replica's folder in it.
    fn log_dir(&self) -> PathBuf {
        match self.replica {
            Some(replica) => replica.folder(&self.output_dir()),
            None => self.output_dir(),
        }
    }
}

/// Results of one data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerceiveSummary {
    /// The data file.
    pub data_path: PathBuf,
    /// The prompts.
    pub output: PathBuf,
    /// The caption log.
    pub log: PathBuf,
    /// Questions in the data file, without [`PerceiveSummary::unanswered`].
    pub questions: usize,
    /// Records skipped because their answers are unknown.
    pub unanswered: usize,
    /// Questions finished by an earlier run.
    #[serde(rename = "already")]
    pub already_finished: usize,
    /// Questions finished by this run.
    pub finished: usize,
    /// Questions that failed in this run.
    pub failed: usize,
    /// Failed questions that the annotations cannot support, by category.
    pub unsupported: BTreeMap<String, usize>,
    /// Failed questions with a frame that the model refused to describe.
    pub refused: usize,
    /// Questions not tried because of the cost limit.
    #[serde(rename = "unpaid")]
    pub over_budget: usize,
    /// Questions not tried or not finished because the run was interrupted.
    #[serde(rename = "stopped")]
    pub interrupted: usize,
    /// Faulty captions of this run, by fault.
    pub faults: BTreeMap<CaptionFault, usize>,
}

impl PerceiveSummary {
    /// Questions beyond [`PerceiveOptions::limit`]: neither finished, failed nor abandoned.
    pub fn remaining(&self) -> usize {
        let abandoned = self.over_budget + self.interrupted;
        self.questions - self.already_finished - self.finished - self.failed - abandoned
    }

    /// The sum of this summary and `other`.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for (count, more) in [
            (&mut self.questions, other.questions),
            (&mut self.already_finished, other.already_finished),
            (&mut self.finished, other.finished),
            (&mut self.failed, other.failed),
            (&mut self.refused, other.refused),
            (&mut self.over_budget, other.over_budget),
            (&mut self.interrupted, other.interrupted),
        ] {
            *count += more;
        }
        for (category, more) in &other.unsupported {
            *self.unsupported.entry(category.clone()).or_default() += more;
        }
        for (fault, more) in &other.faults {
            *self.faults.entry(*fault).or_default() += more;
        }
        self
    }
}

/// One data file in progress.
struct File {
    input: Input,
    log: CaptionLog,
    summary: PerceiveSummary,
}

/// Checks options and data files as [`run`] does, before anything is created.
///
/// # Errors
/// An option or a data file is invalid, an output would overwrite another file, or there are no questions.
pub fn check(options: &PerceiveOptions) -> Result<()> {
    options.keyframes.check()?;
    input::read(&options.data_paths, options.answers.as_deref(), &options.output_dir()).map(drop)
}

/// Captions every unfinished question, and writes the outputs.
///
/// A failed question is logged with its reason, and the run continues.
///
/// # Errors
/// Before any work: data files or logs that cannot be read or written, outputs that would overwrite
/// another file, captions of other settings. During the run: FFmpeg missing, a server that rejects
/// every request, or too many consecutive questions without a response; finished work is written.
pub async fn run(
    options: &PerceiveOptions,
    captioner: &dyn Captioner,
    progress: &dyn Progress,
) -> Result<Vec<PerceiveSummary>> {
    options.keyframes.check()?;
    let settings = settings(options, captioner);
    let mut files = open(options, &settings, progress)?;
    let jobs = work::jobs(options, &files);
    progress.start("perceive", Some(jobs.len() as u64));
    let outcome =
        work::caption_all(options, captioner, &settings, &mut files, jobs, progress).await;
    progress.finish();
    let written = files.into_iter().map(close).collect();
    outcome.and(written)
}

/// The settings that captions depend on, apart from video and question.
pub fn settings(options: &PerceiveOptions, captioner: &dyn Captioner) -> Map<String, Value> {
    let keyframes::KeyFrameOptions { threshold, min_frames, max_frames, .. } = options.keyframes;
    let mut settings = captioner.settings();
    settings.insert("threshold".to_owned(), json!(threshold));
    settings.insert("min_frames".to_owned(), json!(min_frames));
    settings.insert("max_frames".to_owned(), json!(max_frames));
    settings.insert("image_side".to_owned(), json!(options.image_side));
    // Absent means per question, as in logs without this setting.
    if options.scope == Scope::Video {
        settings.insert("scope".to_owned(), json!("video"));
    }
    settings
}

fn open(
    options: &PerceiveOptions,
    settings: &Map<String, Value>,
    progress: &dyn Progress,
) -> Result<Vec<File>> {
    let mut inputs =
        input::read(&options.data_paths, options.answers.as_deref(), &options.log_dir())?;
    if let Some(shard) = options.shard {
        input::retain_shard(&mut inputs, shard);
    }
    if let Some(replica) = options.replica {
        input::retain_part(&mut inputs, replica.index(), replica.count());
    }
    let open = |input: Input| {
        let expected = ExpectedSettings::Exactly(settings, options.changed_settings);
        let mut log = CaptionLog::open(&input.log, expected, progress)?;
        replicas::import_others(&mut log, &input.questions, (options, settings), progress)?;
        let is_finished = |question: &&Question| log.finished(question).is_some();
        let summary = PerceiveSummary {
            data_path: input.data_path.clone(),
            output: options.output_dir().join(file_name(&input.output)),
            log: options.output_dir().join(file_name(&input.log)),
            questions: input.questions.len(),
            unanswered: input.unanswered,
            already_finished: input.questions.iter().filter(is_finished).count(),
            finished: 0,
            failed: 0,
            unsupported: BTreeMap::new(),
            refused: 0,
            over_budget: 0,
            interrupted: 0,
            faults: BTreeMap::new(),
        };
        Ok(File { input, log, summary })
    };
    inputs.into_iter().map(open).collect()
}

/// Writes a file's prompts, and its log in the order of the questions.
fn close(file: File) -> Result<PerceiveSummary> {
    let File { input, log, summary } = file;
    write(&input, log)?;
    Ok(summary)
}

/// Writes the prompts of the finished questions, and the log in the questions' order.
fn write(input: &Input, log: CaptionLog) -> Result<()> {
    let prompts = input.questions.iter().filter_map(|question| {
        let captions = log.finished(question)?;
        Some(input::perceived(question, prompt(captions, &question.question)))
    });
    input::write(&input.output, &prompts.collect::<Vec<_>>())?;
    log.close(&input.questions)
}

/// An error's message, followed by those of its causes that it does not repeat.
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

/// The file name of `path`, for the names of outputs.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

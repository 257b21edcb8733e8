//! Captions for files of questions, with a log to resume from.
//!
//! Each data file `NAME.json` becomes `NAME.json` in the folder of the outputs, with every
//! `question` replaced by the prompt that holds the captions, and `NAME.captions.jsonl`, one line
//! per finished question. The log is written as the work goes on: a run that is killed loses
//! nothing that was finished, and the next one does only what is missing or failed.
//!
//! Several machines take a [`Shard`] each, with outputs in a folder of its own, which [`merge`] puts
//! together.

mod input;
mod log;
mod merge;
mod plan;
mod replicas;
mod shard;
mod tally;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_data::{Progress, Question};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::captioner::{Captioner, Fault, prompt};
use crate::error::Result;
use crate::keyframes;
use input::Input;
use log::{CaptionLog, Expected};

pub use input::{ORIGINAL_QUESTION, video_path};
pub use merge::{MergeOptions, Merged, merge};
pub use plan::Plan;
pub use replicas::{Replica, unite};
pub use shard::Shard;

/// What captions are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// For each question its own, which look out for what it mentions, as in the paper.
    #[default]
    Question,
    /// For each video once, for all of its questions.
    Video,
}

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
    /// What captions are made for.
    pub scope: Scope,
    /// The part of the questions that is done here; `None` means all.
    pub shard: Option<Shard>,
    /// Which of several processes of one run this is; `None` where there is one. [`unite`] follows then.
    pub replica: Option<Replica>,
    /// Once this is true nothing more is begun; requests on their way are waited for.
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// All questions of these files, one at a time, with captions for each; outputs go to `save_path`.
    pub fn new(data_paths: Vec<PathBuf>, save_path: PathBuf) -> Self {
        Self {
            data_paths,
            answers: None,
            folder_path: None,
            save_path,
            concurrency: 1,
            limit: None,
            keyframes: keyframes::Options::default(),
            image_side: None,
            changed: Changed::Refuse,
            scope: Scope::Question,
            shard: None,
            replica: None,
            stop: Arc::default(),
        }
    }

    /// The folder that this run writes to: that of the outputs, or the shard's in it.
    pub fn place(&self) -> PathBuf {
        match self.shard {
            Some(shard) => shard.folder(&self.save_path),
            None => self.save_path.clone(),
        }
    }

    /// The folder of this process's logs: that one, or the replica's in it.
    fn log_place(&self) -> PathBuf {
        match self.replica {
            Some(replica) => replica.folder(&self.place()),
            None => self.place(),
        }
    }
}

/// What became of one data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Of the failed ones, those with a frame that the model refuses to describe.
    pub refused: usize,
    /// Those that were not tried, as the money was spent.
    pub unpaid: usize,
    /// Those that were not tried or not finished, as the run was stopped.
    pub stopped: usize,
    /// Frames of this run whose captions have faults.
    pub faults: BTreeMap<Fault, usize>,
}

impl Summary {
    /// Questions that neither failed nor are finished nor were given up: beyond the limit.
    pub fn left(&self) -> usize {
        let given_up = self.unpaid + self.stopped;
        self.questions - self.already - self.finished - self.failed - given_up
    }

    /// The same for the questions of this one and those of `other`.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for (count, more) in [
            (&mut self.questions, other.questions),
            (&mut self.already, other.already),
            (&mut self.finished, other.finished),
            (&mut self.failed, other.failed),
            (&mut self.refused, other.refused),
            (&mut self.unpaid, other.unpaid),
            (&mut self.stopped, other.stopped),
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

/// One data file on its way.
struct File {
    input: Input,
    log: CaptionLog,
    summary: Summary,
}

/// Captions every question that has none yet, and writes the outputs.
///
/// A question that fails is recorded with its reason, and the run goes on.
///
/// # Errors
/// Data files or logs that cannot be read or written, outputs that would overwrite something,
/// captions of other settings: these are found before any work. FFmpeg missing, a server that
/// refuses everyone, or many questions in a row that no server replied to; what was finished by then
/// is written.
pub async fn run(
    options: &Options,
    captioner: &dyn Captioner,
    progress: &dyn Progress,
) -> Result<Vec<Summary>> {
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

/// What captions depend on beside the video and the question.
pub fn settings(options: &Options, captioner: &dyn Captioner) -> Map<String, Value> {
    let keyframes::Options { threshold, min_frames, max_frames, .. } = options.keyframes;
    let mut settings = captioner.settings();
    settings.insert("threshold".to_owned(), json!(threshold));
    settings.insert("min_frames".to_owned(), json!(min_frames));
    settings.insert("max_frames".to_owned(), json!(max_frames));
    settings.insert("image_side".to_owned(), json!(options.image_side));
    // Captions from before there was a choice were made for each question.
    if options.scope == Scope::Video {
        settings.insert("scope".to_owned(), json!("video"));
    }
    settings
}

fn open(
    options: &Options,
    settings: &Map<String, Value>,
    progress: &dyn Progress,
) -> Result<Vec<File>> {
    let mut inputs =
        input::read(&options.data_paths, options.answers.as_deref(), &options.log_place())?;
    if let Some(shard) = options.shard {
        input::keep_shard(&mut inputs, shard);
    }
    if let Some(replica) = options.replica {
        input::keep_part(&mut inputs, replica.index(), replica.count());
    }
    let open = |input: Input| {
        let expected = Expected::These(settings, options.changed);
        let mut log = CaptionLog::open(&input.log, expected, progress)?;
        replicas::take_others(&mut log, &input.questions, (options, settings), progress)?;
        let done = |question: &&Question| log.finished(question).is_some();
        let summary = Summary {
            data_path: input.data_path.clone(),
            output: options.place().join(file_name(&input.output)),
            log: options.place().join(file_name(&input.log)),
            questions: input.questions.len(),
            unanswered: input.unanswered,
            already: input.questions.iter().filter(done).count(),
            finished: 0,
            failed: 0,
            unsupported: BTreeMap::new(),
            refused: 0,
            unpaid: 0,
            stopped: 0,
            faults: BTreeMap::new(),
        };
        Ok(File { input, log, summary })
    };
    inputs.into_iter().map(open).collect()
}

/// Writes a file's prompts, and its log in the order of the questions.
fn close(file: File) -> Result<Summary> {
    let File { input, log, summary } = file;
    write(&input, log)?;
    Ok(summary)
}

/// Writes the prompts of the questions that are finished, and the log in the questions' order.
fn write(input: &Input, log: CaptionLog) -> Result<()> {
    let prompts = input.questions.iter().filter_map(|question| {
        let captions = log.finished(question)?;
        Some(input::perceived(question, prompt(captions, &question.question)))
    });
    input::write(&input.output, &prompts.collect::<Vec<_>>())?;
    log.close(&input.questions)
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

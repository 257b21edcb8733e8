//! The work on the questions that have no captions yet.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use embodied_r_data::{Progress, Question};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use super::input::video_path;
use super::log::Outcome;
use super::tally::Tally;
use super::{File, Options, Scope, Summary, with_causes};
use crate::captioner::{Asked, Caption, Captioner, Decoders, Footage};
use crate::error::{Error, Result};

/// So many questions in a row that no server replied to end the run, ...
const HOPELESS_QUESTIONS: usize = 8;
/// ... if they are of so many videos: one that servers choke on is no reason to leave the others.
const HOPELESS_VIDEOS: usize = 3;

/// One question to caption.
pub(super) struct Job {
    file: usize,
    question: usize,
    video: Arc<Video>,
}

/// A video, and its captions where they are for all of its questions.
struct Video {
    footage: Footage,
    captions: OnceCell<Result<Vec<Caption>, Arc<Error>>>,
}

/// What became of a question.
enum Done {
    /// Its captions, and whether they were made for it.
    Captions(Vec<Caption>, bool),
    Failed(Error),
    /// It was given up for this run.
    Left(Left),
}

/// Why questions are given up, none of which is their fault.
#[derive(Clone, Copy)]
enum Left {
    /// The money is spent.
    Unpaid,
    /// The run was stopped.
    Stopped,
}

/// What is to be done, the questions of a video one after another: when they are all done its
/// pictures are dropped.
pub(super) fn jobs(options: &Options, files: &[File]) -> Vec<Job> {
    let decoders = Decoders::default();
    let mut known = match options.scope {
        Scope::Question => HashMap::new(),
        Scope::Video => finished_videos(options, files),
    };
    let mut order: HashMap<Option<PathBuf>, usize> = HashMap::new();
    let mut by_video: Vec<Vec<Job>> = Vec::new();
    for (file, File { input, log, .. }) in files.iter().enumerate() {
        let missing = input.questions.iter().enumerate();
        let missing = missing.filter(|(_, question)| log.finished(question).is_none());
        for (question, record) in missing.take(options.limit.unwrap_or(usize::MAX)) {
            let path = video_path(record, options.folder_path.as_deref(), &input.data_path);
            let key = path.as_ref().ok().cloned();
            // Questions without video have each a reason of their own.
            match key.as_ref().and_then(|_| order.get(&key)) {
                Some(&group) => {
                    let video = Arc::clone(&by_video[group][0].video);
                    by_video[group].push(Job { file, question, video });
                }
                None => {
                    let captions = key.as_ref().and_then(|path| known.remove(path)).map(Ok);
                    let captions = OnceCell::new_with(captions);
                    let Options { keyframes, image_side, .. } = options;
                    let footage = Footage::new(path, keyframes, *image_side, &decoders);
                    order.insert(key, by_video.len());
                    let video = Arc::new(Video { footage, captions });
                    by_video.push(vec![Job { file, question, video }]);
                }
            }
        }
    }
    by_video.into_iter().flatten().collect()
}

/// The captions of videos of which some question is finished, so that they serve the others too.
fn finished_videos(options: &Options, files: &[File]) -> HashMap<PathBuf, Vec<Caption>> {
    let mut known = HashMap::new();
    for File { input, log, .. } in files {
        for question in input.questions.iter() {
            let path = video_path(question, options.folder_path.as_deref(), &input.data_path);
            if let (Ok(path), Some(captions)) = (path, log.finished(question)) {
                known.entry(path).or_insert_with(|| captions.to_vec());
            }
        }
    }
    known
}

/// Captions the questions, several at a time, and logs each as soon as it is done.
pub(super) async fn caption_all(
    options: &Options,
    captioner: &dyn Captioner,
    settings: &Map<String, Value>,
    files: &mut [File],
    jobs: Vec<Job>,
    progress: &dyn Progress,
) -> Result<()> {
    let questions: Vec<Arc<[Question]>> =
        files.iter().map(|file| Arc::clone(&file.input.questions)).collect();
    let (spent, stop) = (&AtomicBool::new(false), &*options.stop);
    let work = jobs.into_iter().map(|Job { file, question, video }| {
        let record = &questions[file][question];
        async move {
            if stop.load(Ordering::Relaxed) {
                return (file, record, Done::Left(Left::Stopped));
            }
            if spent.load(Ordering::Relaxed) {
                return (file, record, Done::Left(Left::Unpaid));
            }
            let done = match caption(options.scope, captioner, record, &video).await {
                Ok((captions, made)) => Done::Captions(captions, made),
                Err(error) if error.is_spent() => {
                    spent.store(true, Ordering::Relaxed);
                    Done::Left(Left::Unpaid)
                }
                // An interrupt ends decoders too, whose videos are not at fault.
                Err(_) if stop.load(Ordering::Relaxed) => Done::Left(Left::Stopped),
                Err(error) => Done::Failed(error),
            };
            (file, record, done)
        }
    });
    let mut work = futures_util::stream::iter(work).buffer_unordered(options.concurrency.max(1));
    let (mut tally, mut streak) = (Tally::new(), Streak::default());
    while let Some((file, question, done)) = work.next().await {
        let File { log, summary, .. } = &mut files[file];
        let mut hopeless = Ok(());
        let outcome = match done {
            Done::Left(why) => {
                match why {
                    Left::Unpaid => summary.unpaid += 1,
                    Left::Stopped => summary.stopped += 1,
                }
                continue;
            }
            Done::Failed(error) if error.is_fatal() => return Err(error),
            Done::Captions(captions, made) => {
                summary.finished += 1;
                if made {
                    streak = Streak::default();
                    tally.add(&captions);
                    count_faults(summary, &captions);
                }
                Outcome::Frames(captions)
            }
            Done::Failed(error) => {
                summary.failed += 1;
                summary.refused += usize::from(error.is_refusal());
                if let Error::UnsupportedCategory { category, .. } = &error {
                    *summary.unsupported.entry(category.clone()).or_default() += 1;
                }
                tally.failed(&question.id(), &error, progress);
                let reason = with_causes(&error);
                hopeless = streak.failed(question, error);
                Outcome::Error(reason)
            }
        };
        log.append(question, settings, outcome)?;
        progress.advance(1);
        progress.message(&tally.message(captioner.status()));
        hopeless?;
    }
    Ok(())
}

/// A question's captions, and whether they were made now.
async fn caption(
    scope: Scope,
    captioner: &dyn Captioner,
    question: &Question,
    video: &Video,
) -> Result<(Vec<Caption>, bool)> {
    let asked = Asked::of(question);
    captioner.check(asked)?;
    if scope == Scope::Question {
        return Ok((captioner.caption(asked, &video.footage).await?, true));
    }
    let mut made = false;
    let captions = video.captions.get_or_init(async || {
        made = true;
        captioner.caption(asked.without_question(), &video.footage).await.map_err(Arc::new)
    });
    match captions.await {
        Ok(captions) => Ok((captions.clone(), made)),
        Err(error) => Err(Error::Shared(Arc::clone(error))),
    }
}

fn count_faults(summary: &mut Summary, captions: &[Caption]) {
    for fault in captions.iter().filter_map(|caption| caption.fault) {
        *summary.faults.entry(fault).or_default() += 1;
    }
}

/// Questions in a row that no server replied to.
#[derive(Default)]
struct Streak {
    questions: usize,
    videos: BTreeSet<String>,
}

impl Streak {
    /// # Errors
    /// [`Error::Hopeless`] where it has become too long.
    fn failed(&mut self, question: &Question, error: Error) -> Result<()> {
        if !error.is_without_reply() {
            return Ok(());
        }
        self.questions += 1;
        let video = question.video_id.as_ref().or(question.videos.as_ref());
        self.videos.extend(video.cloned());
        if self.questions < HOPELESS_QUESTIONS || self.videos.len() < HOPELESS_VIDEOS {
            return Ok(());
        }
        Err(Error::Hopeless { questions: self.questions, last: Box::new(error) })
    }
}

//! Captioning the unfinished questions.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use embodied_r_data::{Progress, Question};
use embodied_r_openai::with_causes;
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use super::files::File;
use super::input::video_path;
use super::log::Outcome;
use super::options::{PerceiveOptions, Scope};
use super::stats::RunStats;
use super::summary::PerceiveSummary;
use crate::captioner::{Caption, CaptionRequest, Captioner, DecodeLimit, VideoFrames};
use crate::error::{Error, Result};

/// Consecutive questions without a response that abort the run ...
const MAX_FAILED_QUESTIONS: usize = 8;
/// ... if they span this many videos: one video that servers fail on must not abort the run.
const MIN_FAILED_VIDEOS: usize = 3;

/// One question to caption.
pub(super) struct QuestionJob {
    file: usize,
    question: usize,
    video: Arc<Video>,
}

/// A video, and its captions if all of its questions share them.
struct Video {
    frames: VideoFrames,
    captions: OnceCell<Result<Vec<Caption>, Arc<Error>>>,
}

/// The result of a question.
enum JobResult {
    /// Its captions, and whether they were made now.
    Captions(Vec<Caption>, bool),
    Failed(Error),
    /// It was abandoned in this run.
    Abandoned(Abandoned),
}

/// Why a question was abandoned without an error.
#[derive(Clone, Copy)]
enum Abandoned {
    /// The cost limit is reached.
    OverBudget,
    /// The run was interrupted.
    Interrupted,
}

/// The unfinished questions, grouped by video, so that a video's images can be dropped early.
pub(super) fn jobs(options: &PerceiveOptions, files: &[File]) -> Vec<QuestionJob> {
    let decode_limit = DecodeLimit::default().with_stop(&options.stop);
    let mut captioned = match options.scope {
        Scope::Question => HashMap::new(),
        Scope::Video => finished_videos(options, files),
    };
    let mut order: HashMap<Option<PathBuf>, usize> = HashMap::new();
    let mut by_video: Vec<Vec<QuestionJob>> = Vec::new();
    for (file, File { input, log, .. }) in files.iter().enumerate() {
        let missing = input.questions.iter().enumerate();
        let missing = missing.filter(|(_, question)| log.finished(question).is_none());
        for (question, record) in missing.take(options.limit.unwrap_or(usize::MAX)) {
            let path = video_path(record, options.folder_path.as_deref(), &input.data_path);
            let key = path.as_ref().ok().cloned();
            // Questions without a video fail for different reasons.
            match key.as_ref().and_then(|_| order.get(&key)) {
                Some(&group) => {
                    let video = Arc::clone(&by_video[group][0].video);
                    by_video[group].push(QuestionJob { file, question, video });
                }
                None => {
                    let captions = key.as_ref().and_then(|path| captioned.remove(path)).map(Ok);
                    let captions = OnceCell::new_with(captions);
                    let PerceiveOptions { keyframes, image_side, .. } = options;
                    let frames = VideoFrames::new(path, keyframes, *image_side, &decode_limit);
                    order.insert(key, by_video.len());
                    let video = Arc::new(Video { frames, captions });
                    by_video.push(vec![QuestionJob { file, question, video }]);
                }
            }
        }
    }
    by_video.into_iter().flatten().collect()
}

/// The captions of videos with a finished question, to reuse for the other questions.
fn finished_videos(options: &PerceiveOptions, files: &[File]) -> HashMap<PathBuf, Vec<Caption>> {
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

/// Captions the questions concurrently, and logs each as soon as it is done.
pub(super) async fn caption_all(
    options: &PerceiveOptions,
    captioner: &dyn Captioner,
    settings: &Map<String, Value>,
    files: &mut [File],
    jobs: Vec<QuestionJob>,
    progress: &dyn Progress,
) -> Result<()> {
    let questions: Vec<Arc<[Question]>> =
        files.iter().map(|file| Arc::clone(&file.input.questions)).collect();
    let (over_budget, stop) = (&AtomicBool::new(false), &*options.stop);
    let work = jobs.into_iter().map(|QuestionJob { file, question, video }| {
        let record = &questions[file][question];
        async move {
            if stop.load(Ordering::Relaxed) {
                return (file, record, JobResult::Abandoned(Abandoned::Interrupted));
            }
            if over_budget.load(Ordering::Relaxed) {
                return (file, record, JobResult::Abandoned(Abandoned::OverBudget));
            }
            let done = match caption(options.scope, captioner, record, &video).await {
                Ok((captions, made)) => JobResult::Captions(captions, made),
                Err(error) if error.is_cost_limit() => {
                    over_budget.store(true, Ordering::Relaxed);
                    JobResult::Abandoned(Abandoned::OverBudget)
                }
                // An interrupt also kills decoders; their videos are not at fault.
                Err(_) if stop.load(Ordering::Relaxed) => {
                    JobResult::Abandoned(Abandoned::Interrupted)
                }
                Err(error) => JobResult::Failed(error),
            };
            (file, record, done)
        }
    });
    let mut work = futures_util::stream::iter(work).buffer_unordered(options.concurrency.max(1));
    let (mut stats, mut streak) = (RunStats::new(), FailureStreak::default());
    while let Some((file, question, done)) = work.next().await {
        let File { log, summary, .. } = &mut files[file];
        let mut aborted = Ok(());
        let outcome = match done {
            JobResult::Abandoned(reason) => {
                match reason {
                    Abandoned::OverBudget => summary.over_budget += 1,
                    Abandoned::Interrupted => summary.interrupted += 1,
                }
                continue;
            }
            JobResult::Failed(error) if error.is_fatal() => return Err(error),
            JobResult::Captions(captions, made) => {
                summary.finished += 1;
                if made {
                    streak = FailureStreak::default();
                    stats.add(&captions);
                    count_faults(summary, &captions);
                }
                Outcome::Frames(captions)
            }
            JobResult::Failed(error) => {
                summary.failed += 1;
                summary.refused += usize::from(error.is_refusal());
                summary.missing_videos += usize::from(error.is_missing_video());
                if let Error::UnsupportedCategory { category, .. } = &error {
                    *summary.unsupported.entry(category.clone()).or_default() += 1;
                }
                stats.failed(&question.id(), &error, progress);
                let reason = with_causes(&error);
                aborted = streak.failed(question, error);
                Outcome::Error(reason)
            }
        };
        log.append(question, settings, outcome)?;
        progress.advance(1);
        progress.message(&stats.message(captioner.status()));
        aborted?;
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
    let request = CaptionRequest::from_question(question);
    captioner.check(request)?;
    if scope == Scope::Question {
        return Ok((captioner.caption(request, &video.frames).await?, true));
    }
    let mut made = false;
    let captions = video.captions.get_or_init(async || {
        made = true;
        captioner.caption(request.without_question(), &video.frames).await.map_err(Arc::new)
    });
    match captions.await {
        Ok(captions) => Ok((captions.clone(), made)),
        Err(error) => Err(Error::Shared(Arc::clone(error))),
    }
}

fn count_faults(summary: &mut PerceiveSummary, captions: &[Caption]) {
    for fault in captions.iter().filter_map(|caption| caption.fault) {
        *summary.faults.entry(fault).or_default() += 1;
    }
}

/// Consecutive questions without a response.
#[derive(Default)]
struct FailureStreak {
    questions: usize,
    videos: BTreeSet<String>,
}

impl FailureStreak {
    /// # Errors
    /// [`Error::TooManyFailures`] if the streak is too long.
    fn failed(&mut self, question: &Question, error: Error) -> Result<()> {
        if !error.is_request_failure() {
            return Ok(());
        }
        self.questions += 1;
        let video = question.video_id.as_ref().or(question.videos.as_ref());
        self.videos.extend(video.cloned());
        if self.questions < MAX_FAILED_QUESTIONS || self.videos.len() < MIN_FAILED_VIDEOS {
            return Ok(());
        }
        Err(Error::TooManyFailures { questions: self.questions, last: Box::new(error) })
    }
}

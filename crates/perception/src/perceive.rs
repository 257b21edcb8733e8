//! Captions for files of questions, with a log to resume from.
//!
//! Each data file `NAME.json` becomes `NAME.json` in the output folder, with every `question` replaced
//! by the prompt that holds the captions, and `NAME.captions.jsonl`, one line per finished question.
//! Each line is written as soon as its question is finished: an interrupted run loses no finished work,
//! and the next run resumes with missing and failed questions.
//!
//! Several machines run a [`Shard`] each, with its own output folder; [`merge`] combines them.

mod files;
mod input;
mod log;
mod merge;
mod options;
mod replica;
mod shard;
mod stats;
mod summary;
mod work;
mod workload;

use embodied_r_data::Progress;
use embodied_r_keyframes::KeyFrameOptions;
use serde_json::{Map, Value, json};

use crate::captioner::Captioner;
use crate::error::{Error, Result};
use files::File;

pub use input::video_path;
pub use merge::{MergeOptions, MergeReport, merge};
pub use options::{ChangedSettings, PerceiveOptions, Scope};
pub use replica::Replica;
pub use shard::Shard;
pub use summary::PerceiveSummary;
pub use workload::PerceiveWorkload;

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
    let mut files = files::open(options, &settings, progress)?;
    let jobs = work::jobs(options, &files);
    progress.start("perceive", Some(jobs.len() as u64));
    let outcome =
        work::caption_all(options, captioner, &settings, &mut files, jobs, progress).await;
    progress.finish();
    let written = files.into_iter().map(files::close).collect();
    outcome.and(written)
}

/// The settings that captions depend on, apart from video and question.
pub fn settings(options: &PerceiveOptions, captioner: &dyn Captioner) -> Map<String, Value> {
    let KeyFrameOptions { threshold, min_frames, max_frames, .. } = options.keyframes;
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

/// Merges the replicas' logs into the outputs that one process would write, and removes the replicas' folders. Call it
/// once all replicas are done.
///
/// # Errors
/// Files cannot be read or written, or captions were made with other settings.
pub fn merge_replicas(
    options: &PerceiveOptions,
    settings: &Map<String, Value>,
    progress: &dyn Progress,
) -> Result<()> {
    let options = PerceiveOptions { replica: None, ..options.clone() };
    for File { input, log, .. } in files::open(&options, settings, progress)? {
        files::write(&input, log)?;
    }
    for folder in replica::folders(&options.output_dir())? {
        std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    Ok(())
}

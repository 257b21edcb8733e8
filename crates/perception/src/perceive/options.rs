//! What to caption, and how.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_keyframes::KeyFrameOptions;

use super::replica::Replica;
use super::shard::Shard;

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
    pub keyframes: KeyFrameOptions,
    /// Longest side of the images given to a model, in pixels; `None` keeps the original size.
    pub image_side: Option<u32>,
    /// What to do with captions of other settings.
    pub changed_settings: ChangedSettings,
    /// Whether captions are made per question or per video.
    pub scope: Scope,
    /// The shard of the questions to caption; `None` means all.
    pub shard: Option<Shard>,
    /// This process's replica; `None` for a single process. Call [`merge_replicas`](super::merge_replicas) after all replicas.
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
            keyframes: KeyFrameOptions::default(),
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
    pub(super) fn log_dir(&self) -> PathBuf {
        match self.replica {
            Some(replica) => replica.folder(&self.output_dir()),
            None => self.output_dir(),
        }
    }
}

//! The episodes and tasks of a data set, and where the episodes are.

mod jsonl;
mod parquet;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::episode::EpisodeInfo;
use crate::error::{Error, Result};
use crate::info::Info;
use crate::root::{INFO, Root};
use crate::template::FileIndex;
use crate::version::Version;

/// An episode, and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) info: EpisodeInfo,
    pub(crate) data: FileIndex,
    /// By camera; only of features that are videos.
    pub(crate) videos: BTreeMap<String, VideoSpan>,
}

/// Where the video of an episode is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VideoSpan {
    pub(crate) file: FileIndex,
    /// When the episode starts in the file, in seconds.
    pub(crate) from_s: f64,
}

/// The metadata of a data set besides `info.json`.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// In order of their indices, from 0 without gaps.
    pub(crate) entries: Vec<Entry>,
    /// The instructions by `task_index`.
    pub(crate) tasks: BTreeMap<i64, String>,
    /// The file or folder with the episodes, for errors.
    pub(crate) episodes_path: PathBuf,
}

/// An entry, and the file that has it.
type Found = (Entry, PathBuf);

/// Reads and checks the metadata. Entries may be in any order in the files.
pub(crate) fn read(root: &Root, info: &Info) -> Result<Metadata> {
    let (mut found, tasks, tasks_path, episodes_path) = match info.version() {
        Version::V21 => {
            let needed = || "which v2.1 has".to_owned();
            let tasks_path = root.file("meta/tasks.jsonl", needed)?;
            let episodes_path = root.file("meta/episodes.jsonl", needed)?;
            let tasks = jsonl::tasks(&tasks_path)?;
            (jsonl::episodes(&episodes_path, info)?, tasks, tasks_path, episodes_path)
        }
        Version::V30 => {
            let tasks_path = root.file("meta/tasks.parquet", || "which v3.0 has".to_owned())?;
            let tasks = parquet::tasks(&tasks_path)?;
            let episodes_path = root.path("meta/episodes");
            (parquet::episodes(root, info)?, tasks, tasks_path, episodes_path)
        }
    };
    found.sort_by_key(|(entry, _)| entry.info.index);
    for (expected, (entry, path)) in found.iter().enumerate() {
        let index = entry.info.index;
        let wrong = |reason: String| Err(Error::episode(path, index, "episode_index", reason));
        if index < expected {
            return wrong("occurs twice".to_owned());
        }
        if index > expected {
            return wrong(format!("leaves a gap: episode {expected} is missing"));
        }
        if entry.info.length == 0 {
            return Err(Error::episode(path, index, "length", "is 0"));
        }
    }
    let entries: Vec<Entry> = found.into_iter().map(|(entry, _)| entry).collect();
    let frames = entries.iter().fold(0_usize, |sum, entry| sum.saturating_add(entry.info.length));
    let checks = [
        ("total_episodes", info.total_episodes, entries.len(), "episodes", &episodes_path),
        ("total_frames", info.total_frames, frames, "frames", &episodes_path),
        ("total_tasks", info.total_tasks, tasks.len(), "tasks", &tasks_path),
    ];
    for (field, stated, counted, what, path) in checks {
        if stated != counted {
            let reason = format!("is {stated}, but `{}` has {counted} {what}", path.display());
            return Err(Error::field(&root.path(INFO), field, reason));
        }
    }
    if entries.is_empty() {
        return Err(Error::field(
            &root.path(INFO),
            "total_episodes",
            "is 0: there is nothing to read",
        ));
    }
    Ok(Metadata { entries, tasks, episodes_path })
}

/// Adds a task, whose index must be new.
fn add_task(
    tasks: &mut BTreeMap<i64, String>,
    path: &Path,
    index: i64,
    text: String,
) -> Result<()> {
    match tasks.insert(index, text) {
        None => Ok(()),
        Some(_) => Err(Error::field(path, "task_index", format!("has {index} twice"))),
    }
}

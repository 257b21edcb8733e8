//! Data-parallel captioning: one run of several processes, each with a model replica.
//!
//! Each replica captions whole videos and writes its own log, in `replica-I-of-N` in the output folder. It first
//! imports finished questions from all existing logs, including those of a killed run with another number of replicas.
//! At the end the first replica writes the same outputs as a single process, and removes the replicas' folders.

use std::path::{Path, PathBuf};

use embodied_r_data::Progress;
use serde_json::{Map, Value};

use super::log::CaptionLog;
use super::{PerceiveOptions, file_name, write};
use crate::error::{Error, Result};

/// One of the processes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    index: usize,
    count: usize,
}

impl Replica {
    /// Replica `index` of `count`, from 1; `None` if out of range.
    pub fn new(index: usize, count: usize) -> Option<Self> {
        (1..=count).contains(&index).then_some(Self { index, count })
    }

    pub(super) fn index(self) -> usize {
        self.index
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// The folder of its logs, in the output folder.
    pub(super) fn folder(self, output_dir: &Path) -> PathBuf {
        output_dir.join(format!("replica-{}-of-{}", self.index, self.count))
    }

    fn from_folder(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?.strip_prefix("replica-")?;
        let (index, count) = name.split_once("-of-")?;
        Self::new(index.parse().ok()?, count.parse().ok()?)
    }
}

/// The folders of replicas in the output folder, sorted by name.
fn folders(output_dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(output_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", output_dir))?,
    };
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io("read", output_dir))?.path()));
    let mut folders: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    folders.retain(|folder| Replica::from_folder(folder).is_some());
    folders.sort();
    Ok(folders)
}

/// Imports results of `questions` from the data file's other logs, which may be written concurrently.
pub(super) fn import_others(
    log: &mut CaptionLog,
    questions: &[embodied_r_data::Question],
    (options, settings): (&PerceiveOptions, &Map<String, Value>),
    progress: &dyn Progress,
) -> Result<()> {
    let (output_dir, own) = (options.output_dir(), options.log_dir());
    let mut others = folders(&output_dir)?;
    others.push(output_dir);
    for other in others.into_iter().filter(|other| *other != own) {
        let path = other.join(file_name(log.path()));
        log.import_from(&path, questions, (settings, options.changed_settings), progress)?;
    }
    Ok(())
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
    for super::File { input, log, .. } in super::open(&options, settings, progress)? {
        write(&input, log)?;
    }
    for folder in folders(&options.output_dir())? {
        std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    Ok(())
}

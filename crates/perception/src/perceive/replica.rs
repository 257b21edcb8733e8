//! Data-parallel captioning: one run of several processes, each with a model replica.
//!
//! Each replica captions whole videos and writes its own log, in `replica-I-of-N` in the output folder. It first
//! imports finished questions from all existing logs, including those of a killed run with another number of replicas.
//! At the end the first replica writes the same outputs as a single process, and removes the replicas' folders.

use std::path::{Path, PathBuf};

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
pub(super) fn folders(output_dir: &Path) -> Result<Vec<PathBuf>> {
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

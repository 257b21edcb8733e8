//! One run of several processes, each with a model of its own.
//!
//! Each takes whole videos and writes a log of its own, in `replica-I-of-N` in the folder of the outputs. It begins with
//! what the logs that are there already say of its questions, also those of a run that was killed, by however many
//! processes; at the end the first one writes what one process would have written, and takes the others' folders away.

use std::path::{Path, PathBuf};

use embodied_r_data::Progress;
use serde_json::{Map, Value};

use super::log::CaptionLog;
use super::{Options, file_name, write};
use crate::error::{Error, Result};

/// One of the processes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    index: usize,
    count: usize,
}

impl Replica {
    /// Number `index` of `count`, from 1; `None` where there is no such one.
    pub fn new(index: usize, count: usize) -> Option<Self> {
        (1..=count).contains(&index).then_some(Self { index, count })
    }

    pub(super) fn index(self) -> usize {
        self.index
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// The folder of its logs, in that of the outputs.
    pub(super) fn folder(self, place: &Path) -> PathBuf {
        place.join(format!("replica-{}-of-{}", self.index, self.count))
    }

    fn of_folder(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?.strip_prefix("replica-")?;
        let (index, count) = name.split_once("-of-")?;
        Self::new(index.parse().ok()?, count.parse().ok()?)
    }
}

/// The folders of replicas in that of the outputs, by name.
fn folders(place: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", place))?,
    };
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io("read", place))?.path()));
    let mut folders: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    folders.retain(|folder| Replica::of_folder(folder).is_some());
    folders.sort();
    Ok(folders)
}

/// Takes into a log what the others of its data file say of `questions`; they may be written meanwhile.
pub(super) fn take_others(
    log: &mut CaptionLog,
    questions: &[embodied_r_data::Question],
    (options, settings): (&Options, &Map<String, Value>),
    progress: &dyn Progress,
) -> Result<()> {
    let (place, own) = (options.place(), options.log_place());
    let mut others = folders(&place)?;
    others.push(place);
    for other in others.into_iter().filter(|other| *other != own) {
        let path = other.join(file_name(log.path()));
        log.adopt(&path, questions, (settings, options.changed), progress)?;
    }
    Ok(())
}

/// Writes what one process would have written from what the replicas have, and takes their folders away. To be called
/// once all of them are done.
///
/// # Errors
/// Files cannot be read or written, or captions were made with other settings.
pub fn unite(
    options: &Options,
    settings: &Map<String, Value>,
    progress: &dyn Progress,
) -> Result<()> {
    let options = Options { replica: None, ..options.clone() };
    for super::File { input, log, .. } in super::open(&options, settings, progress)? {
        write(&input, log)?;
    }
    for folder in folders(&options.place())? {
        std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    Ok(())
}

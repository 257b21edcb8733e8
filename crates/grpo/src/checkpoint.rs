//! Checkpoints: folders that either are whole or are not there.
//!
//! A checkpoint is a model in Hugging Face's layout, with three files beside it: the optimiser's
//! moments, the run's state, and the settings that the run was told.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Model, Text};
use crate::optimizer::Optimizer;

/// Name of the state's file in a checkpoint.
pub const STATE_FILE: &str = "trainer_state.json";
/// Name of the moments' file in a checkpoint.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Name of the settings' file in a run's folder and in a checkpoint.
pub const SETTINGS_FILE: &str = "settings.toml";
/// Name of the folder of the last model in a run's folder.
pub const FINAL_FOLDER: &str = "final";

const PREFIX: &str = "checkpoint-";
const REFERENCE_PREFIX: &str = "reference-";

/// All of a run that is neither weights nor moments nor settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Fingerprint of the model that the run began with.
    pub model: String,
    /// Steps done.
    pub step: u64,
    /// Steps done before each stage that has begun.
    pub stage_begins: Vec<u64>,
    /// The last values of the metric that may end the running stage early.
    pub until_values: Vec<f64>,
    /// Optimiser steps since the moments were 0.
    pub optimizer_steps: u64,
    /// Folder of the frozen reference within the run's folder; `None` for the model that the run
    /// began with.
    pub reference: Option<String>,
    /// Steps done at the last evaluation.
    pub evaluated: Option<u64>,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Tokens that went through the loss, prompts included.
    pub num_tokens: u64,
    /// Steps left out because a gradient was not finite.
    pub skipped_steps: u64,
    /// How many of them came last, without one between that was not left out.
    pub skipped_in_a_row: u64,
    /// Length of the file of events when the checkpoint was made.
    pub events_bytes: u64,
}

/// Steps in a row whose gradient is not finite, after which a run gives up.
const MAX_SKIPPED: u64 = 5;

impl State {
    /// The state of a run that begins with the model of this fingerprint.
    pub fn new(model: &str) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    /// Counts a step that was left out, or one that was not; says whether to give up.
    pub(crate) fn count_skipped(&mut self, skipped: bool) -> bool {
        self.skipped_steps += u64::from(skipped);
        self.skipped_in_a_row = if skipped { self.skipped_in_a_row + 1 } else { 0 };
        self.skipped_in_a_row >= MAX_SKIPPED
    }
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The metric that decides.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Steps done when it was found.
    pub step: u64,
}

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
}

impl Checkpoint {
    /// Reads the state of the checkpoint in `path`.
    ///
    /// # Errors
    /// The folder is no checkpoint.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(STATE_FILE);
        let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
        let state = serde_json::from_slice(&bytes).map_err(Error::json(&file))?;
        Ok(Self { path: path.into(), state })
    }

    /// Refuses to go on where `model`, of this fingerprint, is not what the run began with: tokens
    /// would mean something else, and the reference would be another.
    ///
    /// # Errors
    /// It is another model.
    pub fn refuse_other_model(&self, model: &str, fingerprint: &str) -> Result<()> {
        if self.state.model == fingerprint {
            return Ok(());
        }
        let run = self.path.parent().unwrap_or(Path::new(".")).into();
        Err(Error::OtherModel { model: model.into(), run })
    }

    /// The settings that the run was told.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn settings(&self) -> Result<String> {
        let file = self.path.join(SETTINGS_FILE);
        fs::read_to_string(&file).map_err(Error::io("read", &file))
    }
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// The checkpoints in `folder`, of which the last `keep` and the best are kept.
    pub fn new(folder: &Path, keep: usize) -> Self {
        Self { folder: folder.into(), keep }
    }

    /// Steps of all checkpoints, ascending.
    ///
    /// # Errors
    /// The folder cannot be read; one that is not there has none.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> =
            self.names()?.iter().filter_map(|n| n.strip_prefix(PREFIX)?.parse().ok()).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The last checkpoint.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn last(&self) -> Result<Option<Checkpoint>> {
        let last = self.steps()?.last().copied();
        last.map(|step| Checkpoint::open(&self.path(step))).transpose()
    }

    /// Refuses to begin a run where there is one already.
    ///
    /// # Errors
    /// There is a checkpoint, or the folder cannot be read.
    pub fn refuse_any(&self) -> Result<()> {
        match self.steps()?.is_empty() {
            true => Ok(()),
            false => Err(Error::OutputTaken { path: self.folder.clone() }),
        }
    }

    /// Refuses to go on from `from` where there are later checkpoints, which the run would
    /// contradict.
    ///
    /// # Errors
    /// There is a later one, or the folder cannot be read.
    pub fn refuse_later(&self, from: &Checkpoint) -> Result<()> {
        let Some(later) = self.steps()?.into_iter().find(|&step| step > from.state.step) else {
            return Ok(());
        };
        let later = self.path(later);
        let what = format!("`{}` is later; resume from that one, or remove it", later.display());
        Err(Error::Checkpoint { path: from.path.clone(), what })
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name(step))
    }

    /// Writes a checkpoint, then removes those that are too many.
    ///
    /// # Errors
    /// A file cannot be written; the checkpoints from before are still there then.
    pub fn save<M: Model>(
        &self,
        model: &M,
        text: &dyn Text,
        optimizer: &Optimizer,
        state: &State,
        settings: &str,
    ) -> Result<PathBuf> {
        let path = self.path(state.step);
        self.write(&path, |folder| {
            model.save(folder)?;
            text.save(folder)?;
            optimizer.save(&folder.join(OPTIMIZER_FILE))?;
            let file = folder.join(SETTINGS_FILE);
            fs::write(&file, settings).map_err(Error::io("write", &file))?;
            let file = folder.join(STATE_FILE);
            let bytes = serde_json::to_vec_pretty(state).map_err(Error::json(&file))?;
            fs::write(&file, bytes).map_err(Error::io("write", &file))
        })?;
        self.rotate(state)?;
        Ok(path)
    }

    /// Writes the run's settings into its folder, for whoever looks at it before a checkpoint.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_settings(&self, settings: &str) -> Result<()> {
        let file = self.folder.join(SETTINGS_FILE);
        Ok(embodied_r_data::write::write_atomic(&file, settings.as_bytes())?)
    }

    /// Writes the last model of a run, without what training needs.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_final<M: Model>(&self, model: &M, text: &dyn Text) -> Result<PathBuf> {
        let path = self.folder.join(FINAL_FOLDER);
        self.write(&path, |folder| {
            model.save(folder)?;
            text.save(folder)
        })?;
        Ok(path)
    }

    /// Writes a frozen reference that begins after `step` steps; gives its name.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_reference<M: Model>(&self, model: &M, step: u64) -> Result<String> {
        let name = format!("{REFERENCE_PREFIX}{step}");
        self.write(&self.folder.join(&name), |folder| model.save(folder))?;
        Ok(name)
    }

    /// Fills a temporary folder, flushes it to disk and renames it to `path`.
    fn write(&self, path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.folder.join(format!(".{name}.tmp"));
        let replaced = self.folder.join(format!(".{name}.old.tmp"));
        remove(&temporary)?;
        remove(&replaced)?;
        fs::create_dir_all(&temporary).map_err(Error::io("create", &temporary))?;
        if let Err(error) = fill(&temporary).and_then(|()| sync(&temporary)) {
            // The first error is the one to report.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        if path.exists() {
            fs::rename(path, &replaced).map_err(Error::io("replace", path))?;
        }
        fs::rename(&temporary, path).map_err(Error::io("rename to", path))?;
        sync_folder(&self.folder)?;
        remove(&replaced)
    }

    /// Removes the oldest checkpoints, and references that no checkpoint needs any more.
    fn rotate(&self, state: &State) -> Result<()> {
        let best = state.best.as_ref().map(|best| best.step);
        let steps = self.steps()?;
        let too_many = steps.len().saturating_sub(self.keep);
        for &step in steps[..too_many].iter().filter(|&&step| Some(step) != best) {
            remove(&self.path(step))?;
        }
        let mut needed = vec![state.reference.clone()];
        for step in self.steps()? {
            needed.push(Checkpoint::open(&self.path(step))?.state.reference);
        }
        for name in self.names()?.into_iter().filter(|name| name.starts_with(REFERENCE_PREFIX)) {
            if !needed.contains(&Some(name.clone())) {
                remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.folder)(error)),
        };
        entries
            .map(|entry| {
                let entry = entry.map_err(Error::io("read", &self.folder))?;
                Ok(entry.file_name().to_string_lossy().into_owned())
            })
            .collect()
    }
}

/// The name of the checkpoint after `step` steps.
pub fn name(step: u64) -> String {
    format!("{PREFIX}{step}")
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// Flushes a folder's files, and the folder itself, to disk.
fn sync(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let file = fs::File::open(&path).map_err(Error::io("open", &path))?;
        file.sync_all().map_err(Error::io("flush", &path))?;
    }
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    let file = fs::File::open(folder).map_err(Error::io("open", folder))?;
    file.sync_all().map_err(Error::io("flush", folder))
}

//! The checkpoints of a run: saving, finding and removing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::atomic_folder::{self, Manifested};
use super::entry_kind::EntryKind;
use super::stale_files::sweep;
use super::{
    Checkpoint, DamagedCheckpoint, FINAL_FOLDER, Milestones, REFERENCE_PREFIX, RetentionPolicy,
    RunLock, SETTINGS_FILE, STATE_FILE, State, is_reference, name, names, step_of,
};
use crate::checkpoint::finite;
use crate::error::{Error, Result};
use crate::events::skipped::SKIPPED_FOLDER;
use crate::events::{COMPLETIONS_FOLDER, EVENTS_FILE, TENSORBOARD_FOLDER};
use crate::model::{ChatTokenizer, Model};
use crate::update::optimizer::Optimizer;
use embodied_r_dist::ProcessGroup;
use embodied_r_policy::weights::WriterRank;

/// Suffix of a checkpoint that was set aside.
const DAMAGED: &str = ".damaged";

/// Folders that a run writes besides its checkpoints.
const FOLDERS: [&str; 4] = [FINAL_FOLDER, COMPLETIONS_FOLDER, SKIPPED_FOLDER, TENSORBOARD_FOLDER];

/// Files that a run writes.
const FILES: [&str; 2] = [SETTINGS_FILE, EVENTS_FILE];

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    retention: RetentionPolicy,
    process_group: ProcessGroup,
    lock: Option<Arc<RunLock>>,
}

/// The latest intact checkpoint of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct LatestIntact {
    /// The checkpoint; `None` if the run has none at all.
    pub checkpoint: Option<Checkpoint>,
    /// Later, damaged checkpoints, latest first.
    pub damaged: Vec<DamagedCheckpoint>,
}

impl Checkpoints {
    /// The checkpoints in `folder`, keeping the latest `keep_last` and the best.
    pub fn new(folder: &Path, keep_last: usize) -> Self {
        let retention = RetentionPolicy { last: keep_last, milestones: None };
        Self {
            folder: folder.into(),
            retention,
            process_group: ProcessGroup::default(),
            lock: None,
        }
    }

    /// Saves with all ranks of `process_group`: each writes its shard of weights and optimizer state; rank 0 writes and
    /// removes everything else.
    pub fn with_process_group(mut self, process_group: &ProcessGroup) -> Self {
        self.process_group = process_group.clone();
        self
    }

    /// Checks the run's `lock`, if there is one, before each write.
    pub(crate) fn with_lock(mut self, lock: Option<Arc<RunLock>>) -> Self {
        self.lock = lock;
        self
    }

    /// Checks that no other process has taken over the run's folder.
    ///
    /// # Errors
    /// As [`RunLock::keep`].
    pub(crate) fn keep_lock(&self) -> Result<()> {
        self.lock.as_ref().map_or(Ok(()), |lock| lock.keep())
    }

    /// Also keeps the checkpoints at `milestones`.
    pub fn with_milestones(mut self, milestones: Option<Milestones>) -> Self {
        self.retention.milestones = milestones;
        self
    }

    /// The retention policy.
    pub fn retention(&self) -> &RetentionPolicy {
        &self.retention
    }

    /// Creates the run's folder and checks that it is writable and that nothing is in the way of what the run writes, so
    /// that a run does not fail at its first checkpoint or at its end.
    ///
    /// # Errors
    /// The folder cannot be created or written, or something in it is in the way.
    pub fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let folders = FOLDERS.map(|name| (name, EntryKind::Directory));
        for (name, kind) in folders.into_iter().chain(FILES.map(|name| (name, EntryKind::File))) {
            let path = self.folder.join(name);
            if path.symlink_metadata().is_ok() && !kind.is_at(&path) {
                return Err(Error::InTheWay { path, kind });
            }
        }
        let probe = self.folder.join(".probe.tmp");
        fs::write(&probe, [0]).map_err(Error::io("write in", &self.folder))?;
        fs::remove_file(&probe).map_err(Error::io("remove", &probe))
    }

    /// Cleans up after a kill during the writing or removal of a folder.
    ///
    /// # Errors
    /// A folder cannot be renamed or removed.
    pub fn recover(&self) -> Result<()> {
        self.on_rank_zero(|| {
            atomic_folder::recover(&self.folder, |name| {
                step_of(name).is_some() || name == FINAL_FOLDER || is_reference(name)
            })
        })
    }

    /// Writes a folder of the run, which every rank `fill`s with its shard.
    fn write(
        &self,
        name: &str,
        sealed: Manifested,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.keep_lock()?;
        atomic_folder::write(&self.folder, name, sealed, &self.process_group, fill)
    }

    /// Runs `act` on rank 0 while the others wait.
    fn on_rank_zero(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let done = if self.process_group.is_rank_zero() { act() } else { Ok(()) };
        done.and(self.process_group.barrier().map_err(Into::into))
    }

    /// The steps of all checkpoints, ascending; empty if the folder does not exist.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> =
            names(&self.folder)?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The latest intact checkpoint, and the damaged ones after it.
    ///
    /// # Errors
    /// The folder cannot be read, or all its checkpoints are damaged.
    pub fn latest_intact(&self) -> Result<LatestIntact> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match Checkpoint::check(&self.path(step)) {
                Ok(checkpoint) => {
                    return Ok(LatestIntact { checkpoint: Some(checkpoint), damaged });
                }
                Err(found) => damaged.push(found),
            }
        }
        match damaged.is_empty() {
            true => Ok(LatestIntact { checkpoint: None, damaged }),
            false => Err(Error::NoIntactCheckpoint { run: self.folder.clone(), damaged }),
        }
    }

    /// The latest intact checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoints::latest_intact`].
    pub fn last(&self) -> Result<Option<Checkpoint>> {
        Ok(self.latest_intact()?.checkpoint)
    }

    /// The damaged checkpoints after `from`.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn damaged_after(&self, from: &Checkpoint) -> Result<Vec<DamagedCheckpoint>> {
        let later = self.steps()?.into_iter().filter(|&step| step > from.state.step);
        Ok(later.filter_map(|step| Checkpoint::check(&self.path(step)).err()).collect())
    }

    /// Renames damaged checkpoints out of the way without deleting them; returns their new paths.
    ///
    /// # Errors
    /// A checkpoint cannot be renamed.
    pub fn set_aside(&self, damaged: &[DamagedCheckpoint]) -> Result<Vec<PathBuf>> {
        damaged.iter().map(|DamagedCheckpoint { path, .. }| set_aside(path)).collect()
    }

    /// Refuses to start a run in a folder with checkpoints.
    ///
    /// # Errors
    /// There is a checkpoint, or the folder cannot be read.
    pub fn refuse_any(&self) -> Result<()> {
        match self.steps()?.is_empty() {
            true => Ok(()),
            false => Err(Error::OutputExists { path: self.folder.clone() }),
        }
    }

    /// Refuses to resume from `from` if there are later checkpoints, which would no longer match the run.
    ///
    /// # Errors
    /// There is a later checkpoint, or the folder cannot be read.
    pub fn refuse_later(&self, from: &Checkpoint) -> Result<()> {
        let Some(later) = self.steps()?.into_iter().find(|&step| step > from.state.step) else {
            return Ok(());
        };
        let later = self.path(later);
        let what = format!(
            "`{}` is a later checkpoint of this run: resume from it, or delete it",
            later.display()
        );
        Err(Error::Checkpoint { path: from.path.clone(), what })
    }

    /// The folder of the checkpoint at step `step`.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name(step))
    }

    /// Fails if `model` is not finite, which is also tried with the last tokens of `prompt`: it must not replace a good
    /// checkpoint. To be called before anything is saved or reported as saved.
    ///
    /// # Errors
    /// [`Error::NonFinitePolicy`], with the last checkpoint; or a rank is lost.
    pub(crate) fn check_finite<M: Model>(&self, model: &M, prompt: &[u32]) -> Result<()> {
        match finite::non_finite(model, prompt, &self.process_group)? {
            None => Ok(()),
            Some(found) => Err(Error::NonFinitePolicy { found, checkpoint: self.last_path() }),
        }
    }

    /// The folder of the last checkpoint, if there is one that can be found.
    pub(crate) fn last_path(&self) -> Option<PathBuf> {
        self.steps().ok()?.last().map(|step| self.path(*step))
    }

    /// Writes a checkpoint, then applies the retention policy.
    ///
    /// # Errors
    /// A file cannot be written; earlier checkpoints are unaffected.
    pub fn save<M: Model>(
        &self,
        model: &M,
        text: &dyn ChatTokenizer,
        optimizer: &Optimizer,
        state: &State,
        settings: &str,
    ) -> Result<PathBuf> {
        let once = |folder: &Path| {
            text.save(folder)?;
            let file = folder.join(SETTINGS_FILE);
            fs::write(&file, settings).map_err(Error::io("write", &file))?;
            let file = folder.join(STATE_FILE);
            let bytes = serde_json::to_vec_pretty(state).map_err(Error::json(&file))?;
            fs::write(&file, bytes).map_err(Error::io("write", &file))
        };
        self.write(&name(state.step), Manifested::Yes, |folder| {
            optimizer.save(model, folder)?;
            model.save(folder, WriterRank::from(&self.process_group))?;
            if self.process_group.is_rank_zero() { once(folder) } else { Ok(()) }
        })?;
        self.rotate(state)?;
        Ok(self.path(state.step))
    }

    /// Writes the run's settings into its folder, to be readable before the first checkpoint.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_settings(&self, settings: &str) -> Result<()> {
        let file = self.folder.join(SETTINGS_FILE);
        self.on_rank_zero(|| Ok(embodied_r_files::write_atomic(&file, settings.as_bytes())?))
    }

    /// Writes the final model without training state.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_final<M: Model>(&self, model: &M, text: &dyn ChatTokenizer) -> Result<PathBuf> {
        self.write(FINAL_FOLDER, Manifested::No, |folder| {
            model.save(folder, WriterRank::from(&self.process_group))?;
            if self.process_group.is_rank_zero() { text.save(folder) } else { Ok(()) }
        })?;
        Ok(self.folder.join(FINAL_FOLDER))
    }

    /// Writes the frozen reference model as of step `step`; returns its folder name.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_reference<M: Model>(&self, model: &M, step: u64) -> Result<String> {
        let name = format!("{REFERENCE_PREFIX}{step}");
        self.write(&name, Manifested::Yes, |folder| {
            model.save(folder, WriterRank::from(&self.process_group))
        })?;
        Ok(name)
    }

    /// Copies the frozen reference of `from` into this run's folder, if the run is resumed in another folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn copy_reference<M: Model>(&self, model: &M, from: &Checkpoint) -> Result<()> {
        let Some(name) = &from.state.reference else { return Ok(()) };
        if self.process_group.broadcast(self.folder.join(name).exists())? {
            return Ok(());
        }
        self.write(name, Manifested::Yes, |folder| {
            model.save(folder, WriterRank::from(&self.process_group))
        })
    }

    /// Removes checkpoints by the retention policy, and references that no checkpoint needs. A resumed run does so too:
    /// a kill may have come between writing a checkpoint and this.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub(crate) fn rotate(&self, state: &State) -> Result<()> {
        self.on_rank_zero(|| self.apply_retention(state))
    }

    /// Removes stale files of steps that will be repeated.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn sweep(&self, done: u64) -> Result<()> {
        self.on_rank_zero(|| sweep(&self.folder, done))
    }

    fn apply_retention(&self, state: &State) -> Result<()> {
        let best = state.best.as_ref().map(|best| best.step);
        // A copy of a checkpoint under another name is the user's.
        let is_own = |step: &u64| {
            Checkpoint::open(&self.path(*step)).map_or(true, |found| found.state.step == *step)
        };
        let steps: Vec<u64> = self.steps()?.into_iter().filter(is_own).collect();
        for step in self.retention.expired(&steps, best) {
            atomic_folder::remove(&self.folder, &name(step))?;
        }
        let mut needed = vec![state.reference.clone()];
        for step in self.steps()? {
            // An unreadable checkpoint may need any of the references.
            let Ok(checkpoint) = Checkpoint::open(&self.path(step)) else { return Ok(()) };
            needed.push(checkpoint.state.reference);
        }
        let references = names(&self.folder)?;
        for name in references.into_iter().filter(|name| is_reference(name)) {
            if !needed.contains(&Some(name.clone())) {
                atomic_folder::remove(&self.folder, &name)?;
            }
        }
        Ok(())
    }
}

fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let free = (1..).map(|number: u32| match number {
        1 => path.with_file_name(format!("{name}{DAMAGED}")),
        _ => path.with_file_name(format!("{name}{DAMAGED}-{number}")),
    });
    let aside = free.into_iter().find(|aside| !aside.exists()).unwrap_or_else(|| path.into());
    fs::rename(path, &aside).map_err(Error::io("set aside", path))?;
    Ok(aside)
}

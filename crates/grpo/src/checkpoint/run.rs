//! The checkpoints of one run: written, found again, and removed when they are too many.

use std::fs;
use std::path::{Path, PathBuf};

use super::whole::{self, Sealed};
use super::{
    Checkpoint, Damaged, FINAL_FOLDER, Keep, Milestones, REFERENCE_PREFIX, SETTINGS_FILE,
    STATE_FILE, State, name, names, step_of, sweep,
};
use crate::error::{Error, Result};
use crate::model::{Model, Text};
use crate::optimizer::Optimizer;
use crate::team::Team;

/// End of the name of a checkpoint that was set aside.
const DAMAGED: &str = ".damaged";

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: Keep,
    team: Team,
}

/// The last checkpoint of a run that is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct LastWhole {
    /// It; `None` if the run has no checkpoint at all.
    pub checkpoint: Option<Checkpoint>,
    /// Later ones that are not whole, the last first.
    pub damaged: Vec<Damaged>,
}

impl Checkpoints {
    /// The checkpoints in `folder`, of which the last `keep` and the best are kept.
    pub fn new(folder: &Path, keep: usize) -> Self {
        let keep = Keep { last: keep, milestones: None };
        Self { folder: folder.into(), keep, team: Team::default() }
    }

    /// Those of the ranks of `team`, of which each writes a part of the weights and its moments; what is there once the first
    /// one writes and removes.
    pub fn of_team(mut self, team: &Team) -> Self {
        self.team = team.clone();
        self
    }

    /// Keeps those at `milestones` too.
    pub fn with_milestones(mut self, milestones: Option<Milestones>) -> Self {
        self.keep.milestones = milestones;
        self
    }

    /// Which checkpoints stay.
    pub fn keep(&self) -> &Keep {
        &self.keep
    }

    /// Makes the run's folder, and finds out whether files can be written there: a run should not
    /// learn that at its first checkpoint.
    ///
    /// # Errors
    /// They cannot.
    pub fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let probe = self.folder.join(".probe.tmp");
        fs::write(&probe, [0]).map_err(Error::io("write in", &self.folder))?;
        fs::remove_file(&probe).map_err(Error::io("remove", &probe))
    }

    /// Puts right what a kill left behind while a folder was written or removed.
    ///
    /// # Errors
    /// A folder cannot be renamed or removed.
    pub fn recover(&self) -> Result<()> {
        self.first(|| {
            whole::recover(&self.folder, |name| {
                let reference = name.starts_with(REFERENCE_PREFIX);
                step_of(name).is_some() || name == FINAL_FOLDER || reference
            })
        })
    }

    /// Writes a folder of the run, of which each rank `fill`s its share.
    fn write(
        &self,
        name: &str,
        sealed: Sealed,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        whole::write(&self.folder, name, sealed, &self.team, fill)
    }

    /// Lets the first rank do something while the others wait.
    fn first(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let done = if self.team.is_first() { act() } else { Ok(()) };
        done.and(self.team.wait())
    }

    /// Steps of all checkpoints, ascending.
    ///
    /// # Errors
    /// The folder cannot be read; one that is not there has none.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> =
            names(&self.folder)?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    /// The last checkpoint that is whole, and the later ones that are not.
    ///
    /// # Errors
    /// The folder cannot be read, or all checkpoints in it are damaged.
    pub fn last_whole(&self) -> Result<LastWhole> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match Checkpoint::check(&self.path(step)) {
                Ok(checkpoint) => return Ok(LastWhole { checkpoint: Some(checkpoint), damaged }),
                Err(found) => damaged.push(found),
            }
        }
        match damaged.is_empty() {
            true => Ok(LastWhole { checkpoint: None, damaged }),
            false => Err(Error::NoneWhole { run: self.folder.clone(), damaged }),
        }
    }

    /// The last checkpoint that is whole.
    ///
    /// # Errors
    /// As [`Checkpoints::last_whole`].
    pub fn last(&self) -> Result<Option<Checkpoint>> {
        Ok(self.last_whole()?.checkpoint)
    }

    /// The checkpoints later than `from` that are not whole.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn damaged_after(&self, from: &Checkpoint) -> Result<Vec<Damaged>> {
        let later = self.steps()?.into_iter().filter(|&step| step > from.state.step);
        Ok(later.filter_map(|step| Checkpoint::check(&self.path(step)).err()).collect())
    }

    /// Renames damaged checkpoints, so that they are in nobody's way and yet not lost; gives their
    /// new names.
    ///
    /// # Errors
    /// One cannot be renamed.
    pub fn set_aside(&self, damaged: &[Damaged]) -> Result<Vec<PathBuf>> {
        damaged.iter().map(|Damaged { path, .. }| set_aside(path)).collect()
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
        let once = |folder: &Path| {
            text.save(folder)?;
            let file = folder.join(SETTINGS_FILE);
            fs::write(&file, settings).map_err(Error::io("write", &file))?;
            let file = folder.join(STATE_FILE);
            let bytes = serde_json::to_vec_pretty(state).map_err(Error::json(&file))?;
            fs::write(&file, bytes).map_err(Error::io("write", &file))
        };
        self.write(&name(state.step), Sealed::Yes, |folder| {
            optimizer.save(model, folder)?;
            model.save(folder, self.team.writer())?;
            if self.team.is_first() { once(folder) } else { Ok(()) }
        })?;
        self.rotate(state)?;
        Ok(self.path(state.step))
    }

    /// Writes the run's settings into its folder, for whoever looks at it before a checkpoint.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_settings(&self, settings: &str) -> Result<()> {
        let file = self.folder.join(SETTINGS_FILE);
        self.first(|| Ok(embodied_r_data::write::write_atomic(&file, settings.as_bytes())?))
    }

    /// Writes the last model of a run, without what training needs.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_final<M: Model>(&self, model: &M, text: &dyn Text) -> Result<PathBuf> {
        self.write(FINAL_FOLDER, Sealed::No, |folder| {
            model.save(folder, self.team.writer())?;
            if self.team.is_first() { text.save(folder) } else { Ok(()) }
        })?;
        Ok(self.folder.join(FINAL_FOLDER))
    }

    /// Writes a frozen reference that begins after `step` steps; gives its name.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_reference<M: Model>(&self, model: &M, step: u64) -> Result<String> {
        let name = format!("{REFERENCE_PREFIX}{step}");
        self.write(&name, Sealed::Yes, |folder| model.save(folder, self.team.writer()))?;
        Ok(name)
    }

    /// Writes the frozen reference of `from` beside the checkpoints that will be written here, if
    /// the run goes on in another folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn take_reference<M: Model>(&self, model: &M, from: &Checkpoint) -> Result<()> {
        let Some(name) = &from.state.reference else { return Ok(()) };
        if self.team.of_first(self.folder.join(name).exists())? {
            return Ok(());
        }
        self.write(name, Sealed::Yes, |folder| model.save(folder, self.team.writer()))
    }

    /// Removes the checkpoints that are too many, and references that none needs any more. A resumed
    /// run does so too: a kill may have come between a checkpoint's writing and this.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub(crate) fn rotate(&self, state: &State) -> Result<()> {
        self.first(|| self.remove_too_many(state))
    }

    /// Removes what a killed run left of steps that come again.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn sweep(&self, done: u64) -> Result<()> {
        self.first(|| sweep(&self.folder, done))
    }

    fn remove_too_many(&self, state: &State) -> Result<()> {
        let best = state.best.as_ref().map(|best| best.step);
        for step in self.keep.too_many(&self.steps()?, best) {
            whole::remove(&self.folder, &name(step))?;
        }
        let mut needed = vec![state.reference.clone()];
        for step in self.steps()? {
            // Which one a checkpoint needs whose state cannot be read, nobody knows.
            let Ok(checkpoint) = Checkpoint::open(&self.path(step)) else { return Ok(()) };
            needed.push(checkpoint.state.reference);
        }
        let references = names(&self.folder)?;
        for name in references.into_iter().filter(|name| name.starts_with(REFERENCE_PREFIX)) {
            if !needed.contains(&Some(name.clone())) {
                whole::remove(&self.folder, &name)?;
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

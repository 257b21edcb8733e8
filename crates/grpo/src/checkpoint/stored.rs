//! One checkpoint on disk: what it holds, and whether it is whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::manifest::{self, Damage, MANIFEST_FILE};
use super::{SETTINGS_FILE, STATE_FILE, State, step_of};
use crate::error::{Error, Result};
use crate::optimizer::file_name;

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
}

/// A checkpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it, file by file.
    pub damage: Vec<Damage>,
}

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.what())
    }
}

impl Damaged {
    /// What is wrong with it, in words.
    pub fn what(&self) -> String {
        self.damage.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
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

    /// Reads the state of the checkpoint in `path`, once all of its files, and those of the frozen
    /// reference that it needs, are found as they were written.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] says of every file what is wrong with it.
    pub fn open_whole(path: &Path) -> Result<Self> {
        Self::check(path)
            .map_err(|damaged| Error::Checkpoint { what: damaged.what(), path: damaged.path })
    }

    /// As [`Checkpoint::open_whole`], with the damage itself.
    pub(super) fn check(path: &Path) -> Result<Self, Damaged> {
        let damaged = |damage| Damaged { path: path.into(), damage };
        let damage = manifest::damage(path, &[STATE_FILE, SETTINGS_FILE]);
        if !damage.is_empty() {
            return Err(damaged(damage));
        }
        let checkpoint = Self::open(path).map_err(|error| {
            let what = format!("is not of this version: {error}");
            damaged(vec![Damage::Unreadable { file: STATE_FILE.into(), what }])
        })?;
        let files = checkpoint.state.optimizer_files;
        let moments: Vec<String> = (0..files).map(|rank| file_name(rank, files)).collect();
        let moments: Vec<&str> = moments.iter().map(String::as_str).collect();
        let missing = manifest::unlisted(path, &moments);
        if !missing.is_empty() {
            return Err(damaged(missing));
        }
        if let Some(name) = &checkpoint.state.reference {
            let found = manifest::damage(&checkpoint.run().join(name), &[]);
            if !found.is_empty() {
                return Err(damaged(found.into_iter().map(|fault| fault.within(name)).collect()));
            }
        }
        Ok(checkpoint)
    }

    /// Whether `path` is meant as a checkpoint, whole or not, and not as the folder of a run.
    pub fn is_one(path: &Path) -> bool {
        let named = path.file_name().and_then(|name| step_of(&name.to_string_lossy())).is_some();
        path.is_dir()
            && (named || [STATE_FILE, MANIFEST_FILE].iter().any(|f| path.join(f).exists()))
    }

    /// The folder of the run that it belongs to.
    pub fn run(&self) -> &Path {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }

    /// The folder of the frozen reference that it goes on with; `None` for the model that the run
    /// began with.
    pub fn reference(&self) -> Option<PathBuf> {
        self.state.reference.as_ref().map(|name| self.run().join(name))
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
        Err(Error::OtherModel { model: model.into(), run: self.run().into() })
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

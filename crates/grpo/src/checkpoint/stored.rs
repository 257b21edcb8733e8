//! A checkpoint on disk and its integrity.

use std::fs;
use std::path::{Path, PathBuf};

use super::damaged::{Damage, DamagedCheckpoint};
use super::manifest::{self, MANIFEST_FILE};
use super::{SETTINGS_FILE, STATE_FILE, State, step_of};
use crate::error::{Error, Result};
use crate::update::optimizer::file_name;

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
    /// The folder is not a checkpoint.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(STATE_FILE);
        let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
        let state = serde_json::from_slice(&bytes).map_err(Error::json(&file))?;
        Ok(Self { path: path.into(), state })
    }

    /// Reads the state of the checkpoint in `path` after verifying all its files and those of the frozen reference it
    /// needs.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] lists all damaged files.
    pub fn open_verified(path: &Path) -> Result<Self> {
        Self::check(path)
            .map_err(|damaged| Error::Checkpoint { what: damaged.what(), path: damaged.path })
    }

    /// As [`Checkpoint::open_verified`], returning the damage itself.
    pub(super) fn check(path: &Path) -> Result<Self, DamagedCheckpoint> {
        let damaged = |damage| DamagedCheckpoint { path: path.into(), damage };
        let damage = manifest::damage(path, &[STATE_FILE, SETTINGS_FILE]);
        if !damage.is_empty() {
            return Err(damaged(damage));
        }
        let checkpoint = Self::open(path).map_err(|error| {
            let what = format!("was written by another version: {error}");
            damaged(vec![Damage::Unreadable { file: STATE_FILE.into(), what }])
        })?;
        let step = checkpoint.state.step;
        if path.file_name().and_then(|name| step_of(name.to_str()?)).is_some_and(|of| of != step) {
            return Err(damaged(vec![Damage::Renamed { step }]));
        }
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

    /// Whether `path` is a checkpoint, intact or not, rather than a run's folder.
    pub fn is_one(path: &Path) -> bool {
        let named = path.file_name().and_then(|name| step_of(&name.to_string_lossy())).is_some();
        path.is_dir()
            && (named || [STATE_FILE, MANIFEST_FILE].iter().any(|f| path.join(f).exists()))
    }

    /// The run's folder.
    pub fn run(&self) -> &Path {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }

    /// The folder of the frozen reference; `None` for the base model.
    pub fn reference(&self) -> Option<PathBuf> {
        self.state.reference.as_ref().map(|name| self.run().join(name))
    }

    /// Refuses to resume if `model`, with this fingerprint, is not the run's base model: token ids and the reference
    /// would differ.
    ///
    /// # Errors
    /// The model is another one.
    pub fn refuse_other_model(&self, model: &str, fingerprint: &str) -> Result<()> {
        if self.state.model == fingerprint {
            return Ok(());
        }
        Err(Error::ModelMismatch { model: model.into(), run: self.run().into() })
    }

    /// The run's settings.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn settings(&self) -> Result<String> {
        let file = self.path.join(SETTINGS_FILE);
        fs::read_to_string(&file).map_err(Error::io("read", &file))
    }
}

//! One process at a time in a run's folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const LOCK_FILE: &str = ".lock";

/// Keeps other processes from going on with a run. The system takes it back when the process ends,
/// however it does.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
    folder: PathBuf,
}

impl RunLock {
    /// Takes the lock of the run in `folder`; `None` where there is no folder, or where its file system knows
    /// no locks or lets nothing be written.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process has it.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK_FILE);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let Ok(file) = opened else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file, folder: folder.into() })),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { run: folder.into() }),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Whether it is the lock of the run in `folder`: to be taken but once in a process too.
    pub fn is_of(&self, folder: &Path) -> bool {
        let [own, other] = [&self.folder, folder].map(|folder| folder.canonicalize().ok());
        own.is_some() && own == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_gone_on_with_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        assert!(lock.as_ref().is_some_and(|lock| lock.is_of(&dir.path().join("."))));
        assert!(lock.as_ref().is_some_and(|lock| !lock.is_of(&dir.path().join("none"))));
        let told = RunLock::take(dir.path()).unwrap_err().to_string();
        assert!(told.contains("another process") && told.contains(dir.path().to_str().unwrap()));
        drop(lock);
        assert!(RunLock::take(dir.path()).unwrap().is_some());
        assert!(RunLock::take(&dir.path().join("none")).unwrap().is_none());
    }
}

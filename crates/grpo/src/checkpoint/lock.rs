//! The lock of a run's folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const LOCK_FILE: &str = ".lock";

/// Prevents other processes from continuing the run. The operating system releases it when the process ends, however it
/// ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
    folder: PathBuf,
}

impl RunLock {
    /// Locks the run in `folder`; `None` if the folder does not exist or its file system does not support locks or
    /// writing.
    ///
    /// # Errors
    /// [`Error::RunLocked`] if another process holds the lock.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK_FILE);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let Ok(file) = opened else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file, folder: folder.into() })),
            Err(TryLockError::WouldBlock) => Err(Error::RunLocked { run: folder.into() }),
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Whether this is the lock of the run in `folder`; a process may take it only once.
    pub fn is_of(&self, folder: &Path) -> bool {
        let [own, other] = [&self.folder, folder].map(|folder| folder.canonicalize().ok());
        own.is_some() && own == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_locked_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        assert!(lock.as_ref().is_some_and(|lock| lock.is_of(&dir.path().join("."))));
        assert!(lock.as_ref().is_some_and(|lock| !lock.is_of(&dir.path().join("none"))));
        let error = RunLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process") && error.contains(dir.path().to_str().unwrap()));
        drop(lock);
        assert!(RunLock::take(dir.path()).unwrap().is_some());
        assert!(RunLock::take(&dir.path().join("none")).unwrap().is_none());
    }
}

//! The lock of a run's folder.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use embodied_r_files::AppendFile;
use embodied_r_files::append::is_at;
use embodied_r_files::lock::{Lock, lock};

use crate::error::{Error, Result};

const LOCK_FILE: &str = ".lock";

/// Prevents other processes from continuing the run. The operating system releases it when the process ends, however it
/// ends.
///
/// Both the folder and a file in it are locked: the folder's lock outlives the file, if that is deleted, and network
/// file systems lock only files.
#[derive(Debug)]
pub struct RunLock {
    folder: PathBuf,
    /// The folder as it was opened.
    opened: Option<File>,
    /// The lock file; `None` where files cannot be locked.
    file: Mutex<Option<AppendFile>>,
}

impl RunLock {
    /// Locks the run in `folder`; `None` if the folder does not exist or its file system does not support locks or
    /// writing.
    ///
    /// # Errors
    /// [`Error::RunLocked`] if another process holds the lock.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
        let locked = || Error::RunLocked { run: folder.into() };
        let opened = match File::open(folder) {
            Ok(opened) => match opened.try_lock() {
                Ok(()) => Some(opened),
                Err(TryLockError::WouldBlock) => return Err(locked()),
                Err(TryLockError::Error(_)) => None,
            },
            Err(_) => return Ok(None),
        };
        let file = lock_file(folder)?;
        if opened.is_none() && file.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { folder: folder.into(), opened, file: Mutex::new(file) }))
    }

    /// Whether this is the lock of the run in `folder`; a process may take it only once.
    pub fn is_of(&self, folder: &Path) -> bool {
        let [own, other] = [&self.folder, folder].map(|folder| folder.canonicalize().ok());
        own.is_some() && own == other
    }

    /// Checks that the folder is still the one that was locked, and locks a new file if the lock file was deleted.
    ///
    /// # Errors
    /// [`Error::RunMoved`] if the folder is gone or another one; [`Error::RunLocked`] if another process has taken over.
    pub(crate) fn keep(&self) -> Result<()> {
        if let Some(opened) = &self.opened
            && !is_at(opened, &self.folder)
        {
            return Err(Error::RunMoved { run: self.folder.clone() });
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.as_ref().is_some_and(|file| !file.is_at_its_path()) {
            *file = lock_file(&self.folder)?;
        }
        Ok(())
    }
}

/// Locks the lock file of `folder`; `None` if that is not supported.
fn lock_file(folder: &Path) -> Result<Option<AppendFile>> {
    match lock(&folder.join(LOCK_FILE)) {
        Ok(Lock::Held(file)) => Ok(Some(file)),
        Ok(Lock::InUse) => Err(Error::RunLocked { run: folder.into() }),
        Ok(Lock::Unsupported(_)) | Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    #[test]
    fn a_deleted_lock_file_lets_no_second_process_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        let lock = RunLock::take(dir.path()).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(RunLock::take(dir.path()), Err(Error::RunLocked { .. })));
        // On a file system that does not lock folders, the next check locks a new file.
        let lock = RunLock { opened: None, ..lock };
        lock.keep().unwrap();
        let other = File::open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
    }

    #[test]
    fn a_process_that_took_over_ends_the_first_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        let lock = RunLock::take(dir.path()).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        let second = File::create(&path).unwrap();
        second.lock().unwrap();
        assert!(matches!(lock.keep(), Err(Error::RunLocked { .. })));
    }

    #[test]
    fn a_folder_that_was_replaced_ends_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let lock = RunLock::take(&run).unwrap().unwrap();
        lock.keep().unwrap();
        fs::rename(&run, dir.path().join("moved")).unwrap();
        assert!(matches!(lock.keep(), Err(Error::RunMoved { .. })));
        fs::create_dir(&run).unwrap();
        assert!(matches!(lock.keep(), Err(Error::RunMoved { .. })));
    }
}

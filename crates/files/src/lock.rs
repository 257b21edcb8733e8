//! Locks on files. The operating system releases them when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Error, Result};

/// Attempts to lock a file that others remove or replace meanwhile.
const ATTEMPTS: usize = 10;

/// A file that was opened to be locked.
#[derive(Debug)]
pub enum Lock {
    /// It is locked as long as it is open.
    Held(File),
    /// Another process, or another part of this one, holds the lock.
    InUse,
    /// Its file system has no locks: some network file systems.
    Unsupported(File),
}

/// Opens `path` to be read and appended to, creates it if missing, and locks it.
///
/// # Errors
/// The file cannot be opened.
pub fn lock(path: &Path) -> Result<Lock> {
    let mut file = open(path)?;
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            // A process that held the lock may have removed or replaced the file since it was opened here.
            Ok(()) if is_at(&file, path) => return Ok(Lock::Held(file)),
            Ok(()) => file = open(path)?,
            Err(TryLockError::WouldBlock) => return Ok(Lock::InUse),
            Err(TryLockError::Error(_)) => break,
        }
    }
    Ok(Lock::Unsupported(file))
}

/// Opens `path` to be read and appended to, and creates it if missing.
pub(crate) fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path);
    file.map_err(Error::io("open", path))
}

/// Whether the open file or folder is still the one at `path`.
pub fn is_at(open: &File, path: &Path) -> bool {
    let [own, there] =
        [open.metadata(), path.metadata()].map(|of| of.ok().map(|of| (of.dev(), of.ino())));
    own.is_some() && own == there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let held = lock(&path).unwrap();
        assert!(matches!(held, Lock::Held(_)));
        assert!(matches!(lock(&path).unwrap(), Lock::InUse));
        drop(held);
        assert!(matches!(lock(&path).unwrap(), Lock::Held(_)));
    }

    #[test]
    fn a_lock_on_a_replaced_file_is_not_a_lock_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let Lock::Held(file) = lock(&path).unwrap() else { panic!("it is not locked") };
        assert!(is_at(&file, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        std::fs::write(&path, "other").unwrap();
        assert!(!is_at(&file, &path));
        assert!(matches!(lock(&path).unwrap(), Lock::Held(_)));
    }
}

//! Locks on files. The operating system releases them when the process ends, however it ends.

use std::fs::TryLockError;
use std::path::Path;

use crate::append::AppendFile;
use crate::error::Result;

/// Attempts to lock a file that others remove or replace meanwhile.
const ATTEMPTS: usize = 10;

/// A file that was opened to be locked.
#[derive(Debug)]
pub enum Lock {
    /// It is locked until it is dropped.
    Held(AppendFile),
    /// Another process, or another part of this one, holds the lock.
    InUse,
    /// It cannot be locked: some network file systems have no locks.
    Unsupported(AppendFile),
}

/// Opens `path` to be read and appended to, creates it if missing, and locks it.
///
/// # Errors
/// The file cannot be opened.
pub fn lock(path: &Path) -> Result<Lock> {
    for _ in 0..ATTEMPTS {
        if let Some(lock) = locked(AppendFile::open(path)?) {
            return Ok(lock);
        }
    }
    // Others lock it again and again.
    Ok(Lock::InUse)
}

/// Locks an open file; `None` if a process that held the lock has removed or replaced it since it was opened.
fn locked(file: AppendFile) -> Option<Lock> {
    match file.file().try_lock() {
        Ok(()) => file.is_at_its_path().then_some(Lock::Held(file)),
        Err(TryLockError::WouldBlock) => Some(Lock::InUse),
        Err(TryLockError::Error(_)) => Some(Lock::Unsupported(file)),
    }
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
        let open = || AppendFile::open(&path).unwrap();
        assert!(matches!(locked(open()), Some(Lock::Held(_))));
        let removed = open();
        std::fs::remove_file(&path).unwrap();
        assert!(locked(removed).is_none());
        let replaced = open();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "other").unwrap();
        assert!(locked(replaced).is_none());
        assert!(matches!(lock(&path).unwrap(), Lock::Held(_)));
    }
}

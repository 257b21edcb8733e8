//! Folders that are complete or absent: filled under a hidden name, then renamed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::lock::{Lock, lock};

/// A hidden folder beside an output folder, in use by this process alone, that becomes the output. It is removed unless it
/// is published; what a killed process left in it is removed by the next one.
#[derive(Debug)]
pub struct Staging {
    /// The hidden folder: a lock file, and the folder to fill.
    path: PathBuf,
    /// The output, which is absent or an empty folder.
    out: PathBuf,
    _lock: Lock,
}

impl Staging {
    /// An empty folder that is to become `out`; `None` if another process fills one. Folders above `out` are created.
    ///
    /// # Errors
    /// A folder cannot be created, or `out` is a file system's root.
    pub fn beside(out: &Path) -> Result<Option<Self>> {
        // `.` and `..` have no name of their own.
        let out = fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
        let name = out.file_name().ok_or_else(|| {
            Error::io("create", out.as_path())(io::Error::from(ErrorKind::AlreadyExists))
        })?;
        let path = out.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        let lock = lock(&path.join("lock"))?;
        if matches!(lock, Lock::InUse) {
            return Ok(None);
        }
        let staging = Self { path, out, _lock: lock };
        let folder = staging.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        }
        fs::create_dir(&folder).map_err(Error::io("create", &folder))?;
        Ok(Some(staging))
    }

    /// The folder to fill.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.path.join("folder")
    }

    /// Gives the folder the name of the output.
    ///
    /// # Errors
    /// The output exists and is not empty, or its folder cannot be written.
    pub fn publish(self) -> Result<()> {
        fs::rename(self.folder(), &self.out).map_err(Error::io("write", &self.out))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A folder that stays is replaced by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_when_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("above/out");
        let staging = Staging::beside(&out).unwrap().unwrap();
        fs::write(staging.folder().join("file"), "text").unwrap();
        assert!(!out.exists());
        staging.publish().unwrap();
        assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "text");
        assert_eq!(fs::read_dir(dir.path().join("above")).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_folder_may_be_named_by_dots() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        let staging = Staging::beside(&dir.path().join("out/.")).unwrap().unwrap();
        fs::write(staging.folder().join("file"), "text").unwrap();
        staging.publish().unwrap();
        assert!(dir.path().join("out/file").exists());
    }

    #[test]
    fn nothing_stays_of_a_folder_that_is_not_published() {
        let dir = tempfile::tempdir().unwrap();
        drop(Staging::beside(&dir.path().join("out")).unwrap().unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_at_a_time_fills_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let first = Staging::beside(&out).unwrap().unwrap();
        assert!(Staging::beside(&out).unwrap().is_none());
        drop(first);
        assert!(Staging::beside(&out).unwrap().is_some());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(".out.partial/folder");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("old"), "").unwrap();
        let out = dir.path().join("out");
        Staging::beside(&out).unwrap().unwrap().publish().unwrap();
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

//! The folder of a data set, whose files do not lie outside of it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::foreign;

/// `meta/info.json`.
pub(crate) const INFO: &str = "meta/info.json";

/// The folder of a data set.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    dir: PathBuf,
    /// The folders, without links, in which files may lie.
    folders: Vec<PathBuf>,
}

impl Root {
    /// The folder `dir`, which has a `meta/info.json`.
    ///
    /// # Errors
    /// It does not exist, or has no such file; or has another format.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let real = match fs::canonicalize(dir) {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let reason = "but was given as a data set".to_owned();
                return Err(Error::Missing { path: dir.into(), reason });
            }
            Err(error) => return Err(embodied_r_files::Error::io("read", dir)(error).into()),
        };
        if !real.join(INFO).is_file() {
            foreign::refuse(dir)?;
            let reason = "which every LeRobot data set has: name the folder that contains `meta`";
            return Err(Error::Missing { path: dir.join(INFO), reason: reason.to_owned() });
        }
        let mut folders = vec![real.clone()];
        // The cache of the hub has links in `snapshots/<revision>` to files in `blobs`.
        let snapshots = real.parent().filter(|parent| parent.ends_with("snapshots"));
        folders.extend(snapshots.and_then(Path::parent).map(|cache| cache.join("blobs")));
        Ok(Self { dir: dir.into(), folders })
    }

    /// The file at the path `relative`, which [`check`](crate::template::check) accepts.
    ///
    /// # Errors
    /// It is missing, which `reason` explains, is no file, or lies outside of the folder.
    pub(crate) fn file(&self, relative: &str, reason: impl Fn() -> String) -> Result<PathBuf> {
        let path = self.dir.join(relative);
        match fs::canonicalize(&path) {
            Ok(real) if !self.folders.iter().any(|folder| real.starts_with(folder)) => {
                Err(Error::Outside { path })
            }
            Ok(real) if real.is_file() => Ok(path),
            Ok(_) => Err(Error::Missing { path, reason: reason() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::Missing { path, reason: reason() })
            }
            Err(error) => Err(embodied_r_files::Error::io("read", &path)(error).into()),
        }
    }

    /// The path of `relative`, of which nothing is known.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }
}

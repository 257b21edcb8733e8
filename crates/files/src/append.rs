//! Files that are appended to.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file that is read, then appended to. If it is locked, the lock ends when it is dropped.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl AppendFile {
    /// Opens `path`, and creates it if missing. The folder exists.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        Ok(Self { path: path.into(), file, length })
    }

    /// Opens `path` as [`Self::open`] does, and cuts it to its first `length` bytes.
    ///
    /// # Errors
    /// It cannot be opened or cut.
    pub fn cut_to(path: &Path, length: u64) -> Result<Self> {
        let mut file = Self::open(path)?;
        file.cut(length.min(file.length))?;
        Ok(file)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length in bytes, as far as this process has read and written it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether the open file is still the one at its path.
    pub fn is_at_its_path(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Appends bytes in one write, and returns where they are if no other process appends; once this returns, they
    /// survive a kill of the process.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Range<u64>> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        let start = self.length;
        self.length += bytes.len() as u64;
        Ok(start..self.length)
    }

    /// Flushes what was appended to disk, to survive a failure of the machine.
    ///
    /// # Errors
    /// It cannot be flushed.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("flush", &self.path))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn read_all(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(Error::io("read", &self.path))?;
        self.length = bytes.len() as u64;
        Ok(bytes)
    }

    pub(crate) fn cut(&mut self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(Error::io("write", &self.path))?;
        self.length = length;
        Ok(())
    }
}

impl Drop for AppendFile {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is being spawned may hold the file descriptor too.
        let _ = self.file.unlock();
    }
}

/// Whether the open file or folder is still the one at `path`.
pub fn is_at(open: &File, path: &Path) -> bool {
    let [own, there] =
        [open.metadata(), path.metadata()].map(|of| of.ok().map(|of| (of.dev(), of.ino())));
    own.is_some() && own == there
}

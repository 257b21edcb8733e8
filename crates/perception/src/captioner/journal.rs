//! Append-only JSONL files.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// An append-only file, written by one process at a time.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    end: Mutex<End>,
}

#[derive(Debug)]
struct End {
    file: File,
    offset: u64,
}

/// The contents of a file when it was opened.
#[derive(Debug)]
pub(super) struct Lines<T> {
    /// The parsed lines with their byte ranges.
    pub(super) valid: Vec<(Range<u64>, T)>,
    /// Numbers of the lines that cannot be parsed, from 1.
    pub(super) broken: Vec<usize>,
}

impl Journal {
    /// Reads `file`, which is at `path`, and appends to it. A truncated last line gets a line feed, so
    /// that the next line stays intact.
    pub(super) fn new<T: DeserializeOwned>(
        path: &Path,
        mut file: File,
    ) -> Result<(Self, Lines<T>)> {
        let mut bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        if bytes.last().is_some_and(|&last| last != b'\n') {
            file.write_all(b"\n").map_err(Error::io("write", path))?;
            bytes.push(b'\n');
        }
        let end = Mutex::new(End { file, offset: bytes.len() as u64 });
        Ok((Self { path: path.to_owned(), end }, lines(&bytes)))
    }

    /// Opens or creates the file at `path`.
    pub(super) fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Lines<T>)> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        Self::new(path, appendable(path).map_err(Error::io("open", path))?)
    }

    /// Appends a line and returns its byte range; once this returns, the line survives a kill of the
    /// process.
    pub(super) fn append(&self, line: &impl Serialize) -> Result<Range<u64>> {
        let mut text = serde_json::to_vec(line)
            .map_err(|source| embodied_r_data::Error::Json { path: self.path.clone(), source })?;
        text.push(b'\n');
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that a kill cannot truncate the line unless the disk is full.
        end.file.write_all(&text).map_err(Error::io("write", &self.path))?;
        let start = end.offset;
        end.offset += text.len() as u64;
        Ok(start..end.offset)
    }
}

/// Opens the file at `path` for appending, and creates it if missing.
pub(super) fn appendable(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Parses the lines of a file; bytes after the last line feed are still being written.
pub(super) fn lines<T: DeserializeOwned>(bytes: &[u8]) -> Lines<T> {
    let (mut valid, mut broken) = (Vec::new(), Vec::new());
    let mut start = 0;
    let texts = bytes.split_inclusive(|&byte| byte == b'\n');
    for (number, text) in texts.filter(|text| text.ends_with(b"\n")).enumerate() {
        let end = start + text.len() as u64;
        match serde_json::from_slice(text) {
            Ok(line) => valid.push((start..end, line)),
            Err(_) if text == b"\n" => {}
            Err(_) => broken.push(number + 1),
        }
        start = end;
    }
    Lines { valid, broken }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_line_is_broken_and_the_next_one_is_valid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.jsonl");
        Journal::open::<u32>(&path).unwrap().0.append(&17).unwrap();
        std::fs::write(&path, "17\n{\"cut").unwrap();
        let (journal, lines) = Journal::open::<u32>(&path).unwrap();
        assert_eq!((lines.valid, lines.broken), (vec![(0..3, 17)], vec![2]));
        assert_eq!(journal.append(&4).unwrap(), 9..11);
        let (_, lines) = Journal::open::<u32>(&path).unwrap();
        assert_eq!(lines.valid, [(0..3, 17), (9..11, 4)]);
    }

    #[test]
    fn an_unfinished_line_is_ignored() {
        let found: Lines<u32> = lines(b"1\n2");
        assert_eq!((found.valid, found.broken), (vec![(0..2, 1)], vec![]));
    }
}

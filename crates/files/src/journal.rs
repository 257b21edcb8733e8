//! Journals: JSON lines, appended one by one as pieces of work are finished, from which interrupted work resumes.
//!
//! A line is one write, so that a kill can tear at most the last one, and what is written survives the kill.

use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use crate::append::AppendFile;
use crate::error::{Error, Result};
use crate::lock::{self, Lock};
use crate::write::{create_parents, write_lines};

/// The longest value of a changed setting that a message shows, in bytes.
const MAX_VALUE_BYTES: usize = 80;

/// What becomes of a last line without a line feed, which a kill left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TornLine {
    /// It is cut.
    Cut,
    /// It gets the line feed if it is whole, and is cut otherwise. For records that are JSON objects: no part of one is
    /// valid JSON.
    CutUnlessWhole,
    /// It gets a line feed, and is a damaged line unless it is whole.
    End,
}

/// A file of JSON lines, open to be appended to.
#[derive(Debug)]
pub struct Journal {
    file: AppendFile,
    /// The length of the whole lines, if a torn one follows, which the first append cuts.
    cut_to: Option<u64>,
}

impl Journal {
    /// Opens the file for this process alone, or creates it with its parent folders, and returns its contents for
    /// [`lines`]; `None` if another process has it open. Where files cannot be locked, the caller sees to it that no
    /// other process opens it. A torn line is cut when the first one is appended.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn lock(path: &Path, torn: TornLine) -> Result<Option<(Self, Vec<u8>)>> {
        create_parents(path)?;
        match lock::lock(path)? {
            Lock::Held(file) | Lock::Unsupported(file) => Self::new(file, torn).map(Some),
            Lock::InUse => Ok(None),
        }
    }

    /// Like [`Journal::lock`], for a file that several processes append to.
    ///
    /// # Errors
    /// As [`Journal::lock`].
    pub fn share(path: &Path) -> Result<(Self, Vec<u8>)> {
        create_parents(path)?;
        Self::new(AppendFile::open(path)?, TornLine::End)
    }

    /// Like [`Journal::lock`], for a file that [`lock::lock`] has opened.
    ///
    /// # Errors
    /// As [`Journal::lock`].
    pub fn new(mut file: AppendFile, torn: TornLine) -> Result<(Self, Vec<u8>)> {
        let mut text = file.read_all()?;
        let end = whole(&text);
        let keep = match torn {
            TornLine::Cut => false,
            TornLine::CutUnlessWhole => serde_json::from_slice::<IgnoredAny>(&text[end..]).is_ok(),
            TornLine::End => true,
        };
        let is_torn = end < text.len();
        if is_torn && keep {
            text.push(b'\n');
            file.append(b"\n")?;
        } else {
            text.truncate(end);
        }
        let cut_to = (is_torn && !keep).then_some(end as u64);
        Ok((Self { file, cut_to }, text))
    }

    /// Opens or creates the file, and cuts it to its first `length` bytes. The folder exists, and the caller has locked
    /// it.
    ///
    /// # Errors
    /// It cannot be opened or cut.
    pub fn cut_to(path: &Path, length: u64) -> Result<Self> {
        Ok(Self { file: AppendFile::cut_to(path, length)?, cut_to: None })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The length of the file in bytes, as far as this process has read and written it.
    pub fn length(&self) -> u64 {
        self.cut_to.unwrap_or(self.file.length())
    }

    /// Appends a line, and returns its bytes in the file if no other process appends; once this returns, it survives a
    /// kill of the process.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&mut self, record: &impl Serialize) -> Result<Range<u64>> {
        let line = serde_json::to_vec(record).map_err(std::io::Error::from);
        let mut line = line.map_err(Error::io("write", self.path()))?;
        line.push(b'\n');
        if let Some(length) = self.cut_to.take() {
            self.file.cut(length)?;
        }
        self.file.append(&line)
    }

    /// Flushes what was appended to disk, to survive a failure of the machine.
    ///
    /// # Errors
    /// It cannot be flushed.
    pub fn flush(&self) -> Result<()> {
        self.file.flush()
    }

    /// Removes all lines.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.cut_to = None;
        self.file.cut(0)
    }

    /// Closes the journal with other lines in place of those that it has.
    ///
    /// # Errors
    /// The file cannot be written; it then keeps its lines.
    pub fn rewrite<T: Serialize>(self, records: impl IntoIterator<Item = T>) -> Result<()> {
        write_lines(self.path(), records)
    }

    /// Removes the file, once the work is complete.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(self.path()).map_err(Error::io("remove", self.path()))
    }
}

/// A line of a journal that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// Its bytes in the file, with the line feed.
    pub bytes: Range<u64>,
    text: &'a [u8],
}

impl Line<'_> {
    /// The record of the line.
    ///
    /// # Errors
    /// The line is damaged, or is no `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(self.text)
    }
}

/// The lines of a journal. Bytes after the last line feed are still being written by another process.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut start = 0;
    let lines = text[..whole(text)].split_inclusive(|&byte| byte == b'\n').enumerate();
    let lines = lines.map(move |(index, text)| {
        let end = start + text.len() as u64;
        let bytes = std::mem::replace(&mut start, end)..end;
        Line { number: index + 1, bytes, text: text.strip_suffix(b"\n").unwrap_or(text) }
    });
    lines.filter(|line| !line.text.is_empty())
}

/// The length of the lines that end with a line feed.
fn whole(text: &[u8]) -> usize {
    text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

/// How settings differ, such as "`threshold` was 0.5 and is 0.4"; empty if they do not. Long values are not shown.
pub fn changes(before: &Map<String, Value>, now: &Map<String, Value>) -> String {
    let removed = before.keys().filter(|name| !now.contains_key(*name));
    let differs = now.keys().chain(removed).filter(|name| before.get(*name) != now.get(*name));
    let change = |name: &String| {
        let [old, new] = [before, now]
            .map(|of| of.get(name).map_or_else(|| "unset".to_owned(), Value::to_string));
        match old.len().max(new.len()) <= MAX_VALUE_BYTES {
            true => format!("`{name}` was {old} and is {new}"),
            false => format!("`{name}` differs"),
        }
    };
    differs.map(change).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;

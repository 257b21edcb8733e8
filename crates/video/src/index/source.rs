//! Sparse reads from a file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Buffer size: only the headers of frames of some kB are read.
const WINDOW: usize = 1 << 10;

/// A file with sparse, mostly sequential reads.
pub(super) struct Source {
    file: BufReader<File>,
    at: u64,
    length: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        Some(Self { file: BufReader::with_capacity(WINDOW, file), at: 0, length })
    }

    /// The file's length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `bytes` from `at` on; `None` beyond the end of the file.
    pub(super) fn fill(&mut self, at: u64, bytes: &mut [u8]) -> Option<()> {
        let end = at.checked_add(bytes.len() as u64).filter(|end| *end <= self.length)?;
        self.file.seek_relative(at.wrapping_sub(self.at) as i64).ok()?;
        self.at = at;
        self.file.read_exact(bytes).ok()?;
        self.at = end;
        Some(())
    }

    /// The `N` bytes at `at`.
    pub(super) fn array<const N: usize>(&mut self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(at, &mut bytes)?;
        Some(bytes)
    }

    /// The byte at `at`.
    pub(super) fn byte(&mut self, at: u64) -> Option<u8> {
        self.array(at).map(u8::from_be_bytes)
    }

    /// The bytes from `at` to `end`, if there are at most `max`.
    pub(super) fn bytes(&mut self, at: u64, end: u64, max: usize) -> Option<Vec<u8>> {
        let length = usize::try_from(end.checked_sub(at)?).ok()?;
        if length > max || end > self.length {
            return None;
        }
        let mut bytes = vec![0; length];
        self.fill(at, &mut bytes)?;
        Some(bytes)
    }
}

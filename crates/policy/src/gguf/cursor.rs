//! Bounds-checked reads of integers and strings from a byte slice.

use std::fmt::Display;
use std::ops::Range;

use super::fault::{GgufFault, Result};

/// A read position in a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Skips `count` bytes; `what` names them in the error.
    pub(super) fn skip(&mut self, count: u64, what: &dyn Display) -> Result<Range<usize>> {
        let left = self.left();
        let fits = usize::try_from(count).ok().filter(|count| *count <= left);
        let count = fits.ok_or_else(|| GgufFault::Truncated {
            what: what.to_string(),
            want: count,
            at: self.at,
            left,
        })?;
        let start = self.at;
        self.at += count;
        Ok(start..self.at)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &dyn Display) -> Result<[u8; N]> {
        let range = self.skip(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &dyn Display) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &dyn Display) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Skips a length-prefixed string.
    pub(super) fn skip_text(&mut self, what: &dyn Display) -> Result<Range<usize>> {
        let length = self.u64(what)?;
        self.skip(length, what)
    }

    pub(super) fn text(&mut self, what: &dyn Display) -> Result<&'a str> {
        let range = self.skip_text(what)?;
        text(&self.bytes[range], what)
    }

    /// A count of items of at least `min` bytes each.
    pub(super) fn count(&mut self, min: u64, what: &dyn Display) -> Result<u64> {
        let found = self.u64(&format_args!("the number of {what}"))?;
        let left = self.left();
        let max = left as u64 / min;
        if found > max {
            return Err(GgufFault::Count { what: what.to_string(), found, left, max });
        }
        Ok(found)
    }
}

/// Bytes as UTF-8.
pub(super) fn text<'a>(bytes: &'a [u8], what: &dyn Display) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| GgufFault::Text { what: what.to_string() })
}

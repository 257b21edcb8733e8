//! Memory-maps weight files. The crate's only unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::error::{Error, Result};

/// Maps `path` for reading.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: the mapping is read-only, and we never write a file in place: new contents are renamed over the old file,
    // which leaves its mapping intact. Another process may still truncate the mapped file (SIGBUS ends this process) or
    // write to it (any bits are valid elements, and offsets are checked against the mapping's length, which does not
    // change). Every zero-copy reader of safetensors accepts this.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}

/// Drops the pages of `map` that were read from this process's memory; a later access reads them from the file again.
pub(crate) fn release(map: &Mmap) {
    // SAFETY: the pages of a shared, read-only mapping of a file are those of the file when they are accessed again, so
    // that nobody sees other bytes, for the reasons in `map`.
    #[cfg(unix)]
    // Best effort: without it the pages only count as this process's until the system needs their memory.
    let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
    #[cfg(not(unix))]
    let _ = map;
}

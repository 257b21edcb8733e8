//! Memory-maps weight files. The crate's only unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

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

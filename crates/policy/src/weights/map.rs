//! Maps weight files into memory. The crate's only unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps `path` for reading.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: the map is read only, and no file of ours is ever written in place: new contents come by a rename, which
    // leaves the mapped ones whole. What remains is that another process may cut the file while it is mapped (a signal
    // ends this process) or write to it (numbers are read as numbers whatever their bits, and places in the file are
    // checked against the map's length, which does not change): the price of not copying gigabytes, which every reader
    // of safetensors pays.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}

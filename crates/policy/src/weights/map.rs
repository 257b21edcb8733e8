//! Maps weight files into memory. The crate's only unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps `path` for reading.
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // SAFETY: the map is read only and dropped before whoever asked for it returns, its bytes copied or hashed. What
    // remains is that another process may cut the file while it is read (a signal ends the process) or write to it (numbers are
    // read as numbers whatever their bits, and the header is parsed and checked): the price of not copying gigabytes
    // twice, which every reader of safetensors pays.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}

//! Bounded reads of text files that users write.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::error::{Error, Result};

/// Largest file: the questions of both training benchmarks with their captions have less than a tenth.
const MAX_BYTES: u64 = 4 << 30;

/// Some editors on Windows put it at the start of UTF-8 text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a UTF-8 file, without a byte-order mark.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or is larger than 4 GiB.
pub fn read_text(path: &Path) -> Result<String> {
    let read = || {
        let mut text = String::new();
        let length = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        match length as u64 > MAX_BYTES {
            true => Err(io::Error::other(format!("it is larger than {} GiB", MAX_BYTES >> 30))),
            false => Ok(text),
        }
    };
    let mut text = read().map_err(Error::io("read", path))?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "\u{feff}[\u{feff}]").unwrap();
        assert_eq!(read_text(&path).unwrap(), "[\u{feff}]");
    }
}

//! Bounded reads of text files that users write.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use crate::error::{Error, Result};

/// Largest file: the questions of both training benchmarks with their captions have less than a tenth.
const MAX_BYTES: u64 = 4 << 30;

/// Some editors on Windows put it at the start of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The text of a UTF-8 file, without a byte-order mark.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or is larger than 4 GiB.
pub fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let length = open_text(path)?.take(MAX_BYTES + 1).read_to_string(&mut text);
    match length.map_err(Error::io("read", path))? as u64 > MAX_BYTES {
        true => {
            let too_large = format!("it is larger than {} GiB", MAX_BYTES >> 30);
            Err(Error::io("read", path)(io::Error::other(too_large)))
        }
        false => Ok(text),
    }
}

/// Opens a text file to be read piece by piece, after a byte-order mark.
///
/// # Errors
/// The file cannot be read.
pub fn open_text(path: &Path) -> Result<BufReader<File>> {
    let open = || {
        let mut file = BufReader::new(File::open(path)?);
        if file.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            file.consume(BYTE_ORDER_MARK.len());
        }
        Ok(file)
    };
    open().map_err(Error::io("read", path))
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

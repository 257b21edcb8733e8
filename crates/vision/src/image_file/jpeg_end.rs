//! Whether a JPEG is whole. The decoder fills what is missing with gray; Pillow refuses a file without its last marker.

use std::io::{BufRead, Seek, SeekFrom};

/// The marker that begins a JPEG.
pub(super) const START: [u8; 2] = [0xff, 0xd8];

/// Whether the source at its beginning is a JPEG without an end-of-image marker. The source is at its beginning again.
///
/// # Errors
/// It cannot be read.
pub(super) fn is_truncated_jpeg(source: &mut (impl BufRead + Seek)) -> std::io::Result<bool> {
    if !source.fill_buf()?.starts_with(&START) {
        return Ok(false);
    }
    let has_end = has_end(source)?;
    source.seek(SeekFrom::Start(0))?;
    Ok(!has_end)
}

/// Reads a JPEG up to its end-of-image marker. Segments are skipped by their length: a thumbnail has a marker of its own.
fn has_end(source: &mut (impl BufRead + Seek)) -> std::io::Result<bool> {
    source.seek(SeekFrom::Start(START.len() as u64))?;
    loop {
        let Some(marker) = next_marker(source)? else { return Ok(false) };
        match marker {
            0xd9 => return Ok(true),
            // A stuffed byte of the compressed data, restarts and a second start have no length.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => {
                let (Some(high), Some(low)) = (next_byte(source)?, next_byte(source)?) else {
                    return Ok(false);
                };
                let length = i64::from(u16::from_be_bytes([high, low]));
                source.seek_relative((length - 2).max(0))?;
            }
        }
    }
}

/// The byte after the next 0xff, or after several; `None` at the end.
pub(super) fn next_marker(source: &mut impl BufRead) -> std::io::Result<Option<u8>> {
    loop {
        let buffer = source.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        match buffer.iter().position(|byte| *byte == 0xff) {
            Some(at) => source.consume(at + 1),
            None => {
                let read = buffer.len();
                source.consume(read);
                continue;
            }
        }
        loop {
            match next_byte(source)? {
                Some(0xff) => {}
                other => return Ok(other),
            }
        }
    }
}

fn next_byte(source: &mut impl BufRead) -> std::io::Result<Option<u8>> {
    let byte = source.fill_buf()?.first().copied();
    if byte.is_some() {
        source.consume(1);
    }
    Ok(byte)
}

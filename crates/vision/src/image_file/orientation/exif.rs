//! The orientation in EXIF data, a TIFF header with a table of tags.

use super::EXIF;

/// The tag of the orientation.
const ORIENTATION: u32 = 0x0112;

/// The number of the orientation, 0 if the tag has no integer; `None` without the tag, and in broken data.
pub(super) fn orientation(mut data: &[u8]) -> Option<u32> {
    for _ in 0..2 {
        data = data.strip_prefix(EXIF).unwrap_or(data);
    }
    let data = Tiff { data, is_little: is_little(data.get(..4)?)? };
    let table = data.number(4, 4)? as usize;
    let count = data.number(table, 2)? as usize;
    (0..count).find_map(|index| data.orientation(table.checked_add(2 + 12 * index)?))
}

/// The byte order of a TIFF header. Some writers swap the version too.
fn is_little(header: &[u8]) -> Option<bool> {
    match header {
        b"II\x2a\0" | b"II\0\x2a" => Some(true),
        b"MM\0\x2a" | b"MM\x2a\0" => Some(false),
        _ => None,
    }
}

struct Tiff<'a> {
    data: &'a [u8],
    is_little: bool,
}

impl Tiff<'_> {
    /// A number of up to four bytes.
    fn number(&self, at: usize, width: usize) -> Option<u32> {
        let bytes = self.data.get(at..at.checked_add(width)?)?;
        let append = |number, byte: &u8| number << 8 | u32::from(*byte);
        Some(match self.is_little {
            true => bytes.iter().rev().fold(0, append),
            false => bytes.iter().fold(0, append),
        })
    }

    /// The first value of the orientation, if the entry at `at` of a table is one.
    fn orientation(&self, at: usize) -> Option<u32> {
        self.data.get(at..at.checked_add(12)?)?;
        let (tag, kind, count) =
            (self.number(at, 2)?, self.number(at + 2, 2)?, self.number(at + 4, 4)?);
        if tag != ORIENTATION || count == 0 {
            return None;
        }
        let width = match kind {
            6 => 1,
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            // Bytes, text, fractions and floats.
            1 | 2 | 5 | 7 | 10..=12 | 16 => return Some(0),
            _ => return None,
        };
        // Values of more than four bytes stand elsewhere.
        let at = match width * u64::from(count) <= 4 {
            true => at + 8,
            false => self.number(at + 8, 4)? as usize,
        };
        self.number(at, width as usize)
    }
}

//! MP4 boxes (ISO/IEC 14496-12).

use super::super::source::Source;

/// A box type.
pub(super) type FourCc = [u8; 4];

/// Maximum top-level boxes: files with more are fragmented.
const MAX_TOP_LEVEL_BOXES: usize = 64;

/// Maximum size of `moov`: 2 hours at 60 fps with audio have about 20 MB.
const MAX_MOOV_BYTES: usize = 256 << 20;

/// The `moov` box of a file; `None` if there is not exactly one, or the file is fragmented.
pub(super) fn read_index(file: &mut Source) -> Option<Vec<u8>> {
    let length = file.length();
    let mut at = 0;
    let mut index = None;
    for _ in 0..MAX_TOP_LEVEL_BOXES {
        if at == length {
            return index;
        }
        let header: [u8; 8] = file.array(at)?;
        let (size, kind) = header.split_first_chunk::<4>()?;
        let mut size = u64::from(u32::from_be_bytes(*size));
        let mut header_bytes = 8;
        match size {
            0 => size = length - at,
            1 => (size, header_bytes) = (u64::from_be_bytes(file.array(at + 8)?), 16),
            _ => {}
        }
        let end = at.checked_add(size).filter(|end| *end <= length)?;
        if size < header_bytes {
            return None;
        }
        match kind {
            b"moov" if index.is_none() => {
                index = Some(file.bytes(at + header_bytes, end, MAX_MOOV_BYTES)?)
            }
            b"moov" | b"moof" | b"styp" => return None,
            _ => {}
        }
        at = end;
    }
    None
}

/// A box in memory.
#[derive(Clone, Copy)]
pub(super) struct Mp4Box<'a> {
    pub(super) kind: FourCc,
    pub(super) body: &'a [u8],
}

/// Splits `bytes` into boxes; `None` if malformed.
pub(super) fn split(mut bytes: &[u8]) -> Option<Vec<Mp4Box<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        // Some writers end a box with four zeros.
        if bytes == [0; 4] {
            break;
        }
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let kind = *rest.first_chunk::<4>()?;
        let size = u32::from_be_bytes(*size) as usize;
        found.push(Mp4Box { kind, body: bytes.get(8..size)? });
        bytes = bytes.get(size..)?;
    }
    Some(found)
}

/// The only box of a type.
pub(super) fn only<'a>(boxes: &[Mp4Box<'a>], kind: &FourCc) -> Option<&'a [u8]> {
    let mut of_kind = boxes.iter().filter(|entry| entry.kind == *kind);
    let first = of_kind.next()?;
    of_kind.next().is_none().then_some(first.body)
}

/// The big-endian `u32` at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// The big-endian `u64` at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_be_bytes(*eight))
}

/// The entries of a table of `N` numbers each, after version, flags and a count.
pub(super) fn table<const N: usize>(body: &[u8]) -> Option<Vec<[u32; N]>> {
    let count = u32_at(body, 4)? as usize;
    let (numbers, _) = body.get(8..)?.as_chunks::<4>();
    let numbers = numbers.get(..count.checked_mul(N)?)?;
    let (entries, _) = numbers.as_chunks::<N>();
    Some(entries.iter().map(|entry| entry.map(u32::from_be_bytes)).collect())
}

/// Writes a box.
pub(super) fn write(kind: &FourCc, body: &[&[u8]], out: &mut Vec<u8>) {
    let length = 8 + body.iter().map(|part| part.len()).sum::<usize>();
    out.extend((length as u32).to_be_bytes());
    out.extend(kind);
    for part in body {
        out.extend(*part);
    }
}

/// Writes a table: version, flags, a count and the entries.
pub(super) fn write_table<const N: usize>(
    kind: &FourCc,
    version: u32,
    entries: &[[u32; N]],
    out: &mut Vec<u8>,
) {
    let mut body = Vec::with_capacity(8 + 4 * N * entries.len());
    body.extend((version << 24).to_be_bytes());
    body.extend((entries.len() as u32).to_be_bytes());
    body.extend(entries.iter().flatten().flat_map(|number| number.to_be_bytes()));
    write(kind, &[&body], out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_round_trip() {
        let mut bytes = Vec::new();
        write_table(b"stts", 1, &[[3, 512], [1, 600]], &mut bytes);
        write(b"free", &[b"ab", b"c"], &mut bytes);
        let boxes = split(&bytes).unwrap();
        assert_eq!(table::<2>(only(&boxes, b"stts").unwrap()), Some(vec![[3, 512], [1, 600]]));
        assert_eq!(only(&boxes, b"free"), Some(b"abc".as_slice()));
        assert_eq!(only(&boxes, b"moov"), None);
    }

    #[test]
    fn a_truncated_box_or_table_is_rejected() {
        assert!(split(&[0, 0, 0, 9, b'f', b'r', b'e', b'e']).is_none());
        assert!(split(&[0, 0, 0, 4, b'f', b'r', b'e', b'e']).is_none());
        assert_eq!(table::<2>(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]), None);
    }
}

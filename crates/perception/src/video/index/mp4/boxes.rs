//! The boxes that an MP4 file is made of (ISO/IEC 14496-12).

use super::super::source::Source;

/// A box's name.
pub(super) type Kind = [u8; 4];

/// Boxes at the top of a file at most: more are fragments.
const MOST_AT_TOP: usize = 64;

/// Bytes of an index at most: 2 hours at 60 frames a second with sound have 20 MB or so.
const MOST_BYTES: usize = 256 << 20;

/// The index `moov` of a file; `None` where there is none that stands alone.
pub(super) fn read_index(file: &mut Source) -> Option<Vec<u8>> {
    let length = file.length();
    let mut at = 0;
    let mut index = None;
    for _ in 0..MOST_AT_TOP {
        if at == length {
            return index;
        }
        let head: [u8; 8] = file.array(at)?;
        let (size, kind) = head.split_first_chunk::<4>()?;
        let mut size = u64::from(u32::from_be_bytes(*size));
        let mut head_bytes = 8;
        match size {
            0 => size = length - at,
            1 => (size, head_bytes) = (u64::from_be_bytes(file.array(at + 8)?), 16),
            _ => {}
        }
        let end = at.checked_add(size).filter(|end| *end <= length)?;
        if size < head_bytes {
            return None;
        }
        match kind {
            b"moov" if index.is_none() => {
                index = Some(file.bytes(at + head_bytes, end, MOST_BYTES)?)
            }
            b"moov" | b"moof" | b"styp" => return None,
            _ => {}
        }
        at = end;
    }
    None
}

/// A box inside another one.
#[derive(Clone, Copy)]
pub(super) struct Inner<'a> {
    pub(super) kind: Kind,
    pub(super) body: &'a [u8],
}

/// The boxes of which `bytes` are made; `None` where they are not.
pub(super) fn split(mut bytes: &[u8]) -> Option<Vec<Inner<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        // Some writers end a box with four zeros.
        if bytes == [0; 4] {
            break;
        }
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let kind = *rest.first_chunk::<4>()?;
        let size = u32::from_be_bytes(*size) as usize;
        found.push(Inner { kind, body: bytes.get(8..size)? });
        bytes = bytes.get(size..)?;
    }
    Some(found)
}

/// The only box of a kind.
pub(super) fn only<'a>(boxes: &[Inner<'a>], kind: &Kind) -> Option<&'a [u8]> {
    let mut of_kind = boxes.iter().filter(|inner| inner.kind == *kind);
    let first = of_kind.next()?;
    of_kind.next().is_none().then_some(first.body)
}

/// The number of four bytes at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// The number of eight bytes at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_be_bytes(*eight))
}

/// The entries of a table of `N` numbers each, which begins with version, flags and a count.
pub(super) fn table<const N: usize>(body: &[u8]) -> Option<Vec<[u32; N]>> {
    let count = u32_at(body, 4)? as usize;
    let (numbers, _) = body.get(8..)?.as_chunks::<4>();
    let numbers = numbers.get(..count.checked_mul(N)?)?;
    let (entries, _) = numbers.as_chunks::<N>();
    Some(entries.iter().map(|entry| entry.map(u32::from_be_bytes)).collect())
}

/// Writes a box.
pub(super) fn write(kind: &Kind, body: &[&[u8]], out: &mut Vec<u8>) {
    let length = 8 + body.iter().map(|part| part.len()).sum::<usize>();
    out.extend((length as u32).to_be_bytes());
    out.extend(kind);
    for part in body {
        out.extend(*part);
    }
}

/// Writes a table of entries with version, flags and a count before them.
pub(super) fn write_table<const N: usize>(
    kind: &Kind,
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
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        write_table(b"stts", 1, &[[3, 512], [1, 600]], &mut bytes);
        write(b"free", &[b"ab", b"c"], &mut bytes);
        let boxes = split(&bytes).unwrap();
        assert_eq!(table::<2>(only(&boxes, b"stts").unwrap()), Some(vec![[3, 512], [1, 600]]));
        assert_eq!(only(&boxes, b"free"), Some(b"abc".as_slice()));
        assert_eq!(only(&boxes, b"moov"), None);
    }

    #[test]
    fn a_box_or_a_table_that_claims_more_than_is_there_is_none() {
        assert!(split(&[0, 0, 0, 9, b'f', b'r', b'e', b'e']).is_none());
        assert!(split(&[0, 0, 0, 4, b'f', b'r', b'e', b'e']).is_none());
        assert_eq!(table::<2>(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]), None);
    }
}

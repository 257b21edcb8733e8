//! The elements that a Matroska file is made of (EBML, RFC 8794).

use super::super::source::Source;

/// An element's name, with the bits that tell its length.
pub(super) type Id = u32;

/// Bytes that an element's name and length take at most.
const MOST_HEAD_BYTES: usize = 12;

/// Elements that are looked at in a file at most: four for each frame of the longest video.
const MOST_ELEMENTS: usize = 4 * super::super::MOST_SAMPLES;

/// An element's name, and how many bytes its head and its body take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    id: Id,
    head_bytes: usize,
    body_bytes: u64,
}

/// Reads an element's name and length; `None` for a length that is left open.
fn head(bytes: &[u8]) -> Option<Head> {
    let id_bytes = bytes.first()?.leading_zeros() as usize + 1;
    let id = bytes.get(..id_bytes).filter(|id| id.len() <= 4)?;
    let id = id.iter().fold(0, |id, byte| id << 8 | Id::from(*byte));
    let (body_bytes, length_bytes) = length(bytes.get(id_bytes..)?)?;
    Some(Head { id, head_bytes: id_bytes + length_bytes, body_bytes })
}

/// Reads a number that tells its own length, and that; `None` where all its bits are set, which means
/// that it is not known.
pub(super) fn length(bytes: &[u8]) -> Option<(u64, usize)> {
    let count = bytes.first()?.leading_zeros() as usize + 1;
    let bytes = bytes.get(..count).filter(|bytes| bytes.len() <= 8)?;
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let unknown = (1 << (7 * count)) - 1;
    let number = number & unknown;
    (number != unknown).then_some((number, count))
}

/// An element in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner<'a> {
    pub(super) id: Id,
    pub(super) body: &'a [u8],
    /// With its name and length.
    pub(super) whole: &'a [u8],
}

/// The elements of which `bytes` are made; `None` where they are not.
pub(super) fn split(mut bytes: &[u8]) -> Option<Vec<Inner<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let head = head(bytes)?;
        let end = head.head_bytes.checked_add(usize::try_from(head.body_bytes).ok()?)?;
        let (whole, rest) = bytes.split_at_checked(end)?;
        found.push(Inner { id: head.id, body: whole.get(head.head_bytes..)?, whole });
        bytes = rest;
    }
    Some(found)
}

/// The element of a kind, if there is one; `None` where there are more.
pub(super) fn at_most_one<'a>(elements: &[Inner<'a>], id: Id) -> Option<Option<&'a [u8]>> {
    let mut of_kind = elements.iter().filter(|inner| inner.id == id);
    let first = of_kind.next().map(|inner| inner.body);
    of_kind.next().is_none().then_some(first)
}

/// The number that the only element of a kind holds, or `default` where there is none.
pub(super) fn number(
    elements: &[Inner<'_>],
    id: Id,
    default: impl Into<Option<u64>>,
) -> Option<u64> {
    match at_most_one(elements, id)? {
        Some(body) => unsigned(body),
        None => default.into(),
    }
}

/// A number that takes a whole body.
pub(super) fn unsigned(body: &[u8]) -> Option<u64> {
    let is_one = (1..=8).contains(&body.len());
    is_one.then(|| body.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// An element in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) id: Id,
    pub(super) start: u64,
    pub(super) body: u64,
    pub(super) end: u64,
}

/// A file whose elements are passed over one by one.
pub(super) struct Elements {
    pub(super) file: Source,
    left: usize,
}

impl Elements {
    pub(super) fn of(file: Source) -> Self {
        Self { file, left: MOST_ELEMENTS }
    }

    /// The element at `start`, which lies inside one that ends at `end`.
    pub(super) fn at(&mut self, start: u64, end: u64) -> Option<Element> {
        self.left = self.left.checked_sub(1)?;
        let mut bytes = [0; MOST_HEAD_BYTES];
        let there = end.checked_sub(start)?.min(MOST_HEAD_BYTES as u64) as usize;
        self.file.fill(start, &mut bytes[..there])?;
        let head = head(&bytes[..there])?;
        let body = start + head.head_bytes as u64;
        let end = body.checked_add(head.body_bytes).filter(|own| *own <= end)?;
        Some(Element { id: head.id, start, body, end })
    }
}

/// Appends an element.
pub(super) fn write(id: Id, body: &[u8], out: &mut Vec<u8>) {
    write_head(id, body.len() as u64, out);
    out.extend(body);
}

/// Appends the head of an element with a body of so many bytes.
pub(super) fn write_head(id: Id, body_bytes: u64, out: &mut Vec<u8>) {
    out.extend(id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0));
    // A length of eight bytes, the first of which tells so.
    out.extend((1 << 56 | body_bytes).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        write(0xe7, &[1, 0], &mut bytes);
        write(0x1a45_dfa3, b"abc", &mut bytes);
        let elements = split(&bytes).unwrap();
        assert_eq!(number(&elements, 0xe7, None), Some(256));
        assert_eq!(at_most_one(&elements, 0x1a45_dfa3), Some(Some(b"abc".as_slice())));
        assert_eq!(elements[1].whole.len(), 4 + 8 + 3);
        assert_eq!(number(&elements, 0xae, 7), Some(7));
    }

    #[test]
    fn lengths_of_one_to_eight_bytes_are_read_and_open_ones_are_not() {
        assert_eq!(length(&[0x81]), Some((1, 1)));
        assert_eq!(length(&[0x40, 0x81, 9]), Some((0x81, 2)));
        assert_eq!(length(&[1, 0, 0, 0, 0, 0, 2, 0]), Some((512, 8)));
        assert_eq!(length(&[0xff]), None);
        assert_eq!(length(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(length(&[0, 1, 1, 1, 1, 1, 1, 1, 1]), None);
    }

    #[test]
    fn an_element_that_claims_more_than_is_there_is_none() {
        assert!(split(&[0xe7, 0x82, 1]).is_none());
        assert!(split(&[0xe7]).is_none());
        assert!(split(&[0x1a, 0x45]).is_none());
        assert!(split(&[0xe7, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).is_none());
        assert!(split(&[0]).is_none());
    }
}

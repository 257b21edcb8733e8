//! EBML elements (RFC 8794).

use super::super::source::Source;

/// An element ID, with its length marker bits.
pub(super) type Id = u32;

/// Maximum size of an element's ID and data size.
const MAX_HEADER_BYTES: usize = 12;

/// Maximum parsed elements of a file: four per frame of the longest video.
const MAX_ELEMENTS: usize = 4 * super::super::sample::MAX_SAMPLES;

/// An element's ID, and the sizes of its header and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ElementHeader {
    id: Id,
    header_bytes: usize,
    body_bytes: u64,
}

/// Parses an element's ID and data size; `None` for an unknown size.
fn header(bytes: &[u8]) -> Option<ElementHeader> {
    let id_bytes = bytes.first()?.leading_zeros() as usize + 1;
    let id = bytes.get(..id_bytes).filter(|id| id.len() <= 4)?;
    let id = id.iter().fold(0, |id, byte| id << 8 | Id::from(*byte));
    let (body_bytes, length_bytes) = vint(bytes.get(id_bytes..)?)?;
    Some(ElementHeader { id, header_bytes: id_bytes + length_bytes, body_bytes })
}

/// Parses a variable-size integer and returns it with its length; `None` if all bits are set (unknown
/// size).
pub(super) fn vint(bytes: &[u8]) -> Option<(u64, usize)> {
    let count = bytes.first()?.leading_zeros() as usize + 1;
    let bytes = bytes.get(..count).filter(|bytes| bytes.len() <= 8)?;
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let unknown = (1 << (7 * count)) - 1;
    let number = number & unknown;
    (number != unknown).then_some((number, count))
}

/// An element in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct InnerElement<'a> {
    pub(super) id: Id,
    pub(super) body: &'a [u8],
    /// With its header.
    pub(super) whole: &'a [u8],
}

/// Splits `bytes` into elements; `None` if malformed.
pub(super) fn split(mut bytes: &[u8]) -> Option<Vec<InnerElement<'_>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let header = header(bytes)?;
        let end = header.header_bytes.checked_add(usize::try_from(header.body_bytes).ok()?)?;
        let (whole, rest) = bytes.split_at_checked(end)?;
        found.push(InnerElement { id: header.id, body: whole.get(header.header_bytes..)?, whole });
        bytes = rest;
    }
    Some(found)
}

/// The element with an ID, if any; `None` if there are several.
pub(super) fn at_most_one<'a>(elements: &[InnerElement<'a>], id: Id) -> Option<Option<&'a [u8]>> {
    let mut of_kind = elements.iter().filter(|inner| inner.id == id);
    let first = of_kind.next().map(|inner| inner.body);
    of_kind.next().is_none().then_some(first)
}

/// The unsigned integer of the only element with an ID, or `default` if there is none.
pub(super) fn uint(
    elements: &[InnerElement<'_>],
    id: Id,
    default: impl Into<Option<u64>>,
) -> Option<u64> {
    match at_most_one(elements, id)? {
        Some(body) => parse_uint(body),
        None => default.into(),
    }
}

/// Parses an element body as an unsigned integer.
pub(super) fn parse_uint(body: &[u8]) -> Option<u64> {
    let is_valid = (1..=8).contains(&body.len());
    is_valid.then(|| body.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// An element in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub(super) id: Id,
    pub(super) start: u64,
    pub(super) body: u64,
    pub(super) end: u64,
}

/// Iterates over the elements of a file.
pub(super) struct Elements {
    pub(super) file: Source,
    left: usize,
}

impl Elements {
    pub(super) fn of(file: Source) -> Self {
        Self { file, left: MAX_ELEMENTS }
    }

    /// The element at `start`, inside one that ends at `end`.
    pub(super) fn at(&mut self, start: u64, end: u64) -> Option<Element> {
        self.left = self.left.checked_sub(1)?;
        let mut bytes = [0; MAX_HEADER_BYTES];
        let there = end.checked_sub(start)?.min(MAX_HEADER_BYTES as u64) as usize;
        self.file.fill(start, &mut bytes[..there])?;
        let header = header(&bytes[..there])?;
        let body = start + header.header_bytes as u64;
        let end = body.checked_add(header.body_bytes).filter(|own| *own <= end)?;
        Some(Element { id: header.id, start, body, end })
    }
}

/// Appends an element.
pub(super) fn write(id: Id, body: &[u8], out: &mut Vec<u8>) {
    write_header(id, body.len() as u64, out);
    out.extend(body);
}

/// Appends the header of an element with a body of `body_bytes` bytes.
pub(super) fn write_header(id: Id, body_bytes: u64, out: &mut Vec<u8>) {
    out.extend(id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0));
    // An eight-byte size; the leading 1 is its length marker.
    out.extend((1 << 56 | body_bytes).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_round_trip() {
        let mut bytes = Vec::new();
        write(0xe7, &[1, 0], &mut bytes);
        write(0x1a45_dfa3, b"abc", &mut bytes);
        let elements = split(&bytes).unwrap();
        assert_eq!(uint(&elements, 0xe7, None), Some(256));
        assert_eq!(at_most_one(&elements, 0x1a45_dfa3), Some(Some(b"abc".as_slice())));
        assert_eq!(elements[1].whole.len(), 4 + 8 + 3);
        assert_eq!(uint(&elements, 0xae, 7), Some(7));
    }

    #[test]
    fn sizes_of_one_to_eight_bytes_are_parsed_and_unknown_ones_rejected() {
        assert_eq!(vint(&[0x81]), Some((1, 1)));
        assert_eq!(vint(&[0x40, 0x81, 9]), Some((0x81, 2)));
        assert_eq!(vint(&[1, 0, 0, 0, 0, 0, 2, 0]), Some((512, 8)));
        assert_eq!(vint(&[0xff]), None);
        assert_eq!(vint(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(vint(&[0, 1, 1, 1, 1, 1, 1, 1, 1]), None);
    }

    #[test]
    fn a_truncated_element_is_rejected() {
        assert!(split(&[0xe7, 0x82, 1]).is_none());
        assert!(split(&[0xe7]).is_none());
        assert!(split(&[0x1a, 0x45]).is_none());
        assert!(split(&[0xe7, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).is_none());
        assert!(split(&[0]).is_none());
    }
}

//! Where an image's orientation stands: in its EXIF data, else in its XMP data, in all places where Pillow finds them.
//!
//! `image` reads neither XMP nor the text chunks of PNG for it, no chunk after the pixels, and takes no EXIF data behind
//! the prefix of JPEG. Broken EXIF data, with which Pillow refuses an image, have no orientation here.

mod exif;
#[cfg(test)]
mod tests;

use std::io::{BufRead, Cursor, Read, Seek, SeekFrom};

use image::ImageDecoder as _;
use image::codecs::png::PngDecoder;
use image::metadata::Orientation;

use super::MAX_METADATA_BYTES;
use super::jpeg_end::{self, next_marker};

/// What EXIF data begin with in a JPEG, and in other formats sometimes.
const EXIF: &[u8] = b"Exif\0\0";

/// What XMP data begin with in a JPEG.
const XMP_IN_JPEG: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// The keyword of XMP data in a PNG's text.
const XMP_IN_PNG: &[u8] = b"XML:com.adobe.xmp";

/// The keyword of EXIF data in a PNG's text, as hexadecimal digits after three lines. ImageMagick writes it.
const EXIF_PROFILE: &[u8] = b"Raw profile type exif";

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The metadata of a file that may have the orientation.
#[derive(Default)]
struct Metadata {
    exif: Option<Vec<u8>>,
    /// EXIF data in the text of a PNG, which count if there are no others.
    exif_profile: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
}

/// The orientation of the image in `source`, which is at its beginning before and after.
///
/// # Errors
/// It cannot be read.
pub(super) fn find(source: &mut (impl BufRead + Seek)) -> std::io::Result<Orientation> {
    let mut start = Vec::new();
    source.by_ref().take(12).read_to_end(&mut start)?;
    let metadata = match start.as_slice() {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => of_webp(source)?,
        start if start.starts_with(&jpeg_end::START) => of_jpeg(source)?,
        start if start.starts_with(PNG) => of_png(source)?,
        _ => Metadata::default(),
    };
    source.seek(SeekFrom::Start(0))?;
    let number = u8::try_from(metadata.number()).unwrap_or_default();
    Ok(Orientation::from_exif(number).unwrap_or(Orientation::NoTransforms))
}

impl Metadata {
    /// The number of the orientation; 0 if there is none.
    fn number(&self) -> u32 {
        let exif = self.exif.as_ref().or(self.exif_profile.as_ref());
        let in_exif = exif.and_then(|exif| exif::orientation(exif));
        in_exif.or_else(|| in_xmp(self.xmp.as_deref()?)).unwrap_or_default()
    }

    /// Keeps a text of a PNG by its keyword. The last one of a keyword counts.
    fn add_text(&mut self, keyword: &[u8], text: Option<Vec<u8>>) {
        match keyword {
            XMP_IN_PNG => self.xmp = text,
            EXIF_PROFILE => self.exif_profile = text.as_deref().and_then(in_profile),
            _ => {}
        }
    }
}

/// The digit after the first name of the tag with a value, as attribute or element.
fn in_xmp(xmp: &[u8]) -> Option<u32> {
    const TAG: &[u8] = b"tiff:Orientation";
    let named = xmp.windows(TAG.len()).enumerate().filter(|(_, name)| *name == TAG);
    let mut values = named.filter_map(|(at, _)| {
        let rest = xmp.get(at + TAG.len()..)?;
        rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()
    });
    let digit = values.find(|digit| digit.is_ascii_digit())?;
    Some(u32::from(digit - b'0'))
}

/// The segments before the pixels. EXIF data may take several.
fn of_jpeg(source: &mut (impl BufRead + Seek)) -> std::io::Result<Metadata> {
    let mut metadata = Metadata::default();
    source.seek(SeekFrom::Start(jpeg_end::START.len() as u64))?;
    while let Some(marker) = next_marker(source)? {
        match marker {
            // The pixels, and the end.
            0xda | 0xd9 => break,
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let Some(length) = bytes(source)?.map(u16::from_be_bytes) else { break };
        let length = u64::from(length).saturating_sub(2);
        if marker != 0xe1 {
            source.seek_relative(length as i64)?;
            continue;
        }
        let Some(segment) = data(source, length)? else { break };
        if let Some(exif) = segment.strip_prefix(EXIF) {
            metadata.exif.get_or_insert_default().extend_from_slice(exif);
        } else if let Some(xmp) = segment.strip_prefix(XMP_IN_JPEG) {
            metadata.xmp = Some(xmp.to_owned());
        }
    }
    Ok(metadata)
}

/// The chunks before and after the pixels, up to the second frame of an animation.
fn of_png(source: &mut (impl BufRead + Seek)) -> std::io::Result<Metadata> {
    let mut metadata = Metadata::default();
    source.seek(SeekFrom::Start(PNG.len() as u64))?;
    let mut has_pixels = false;
    while let Some(length) = bytes(source)?.map(u32::from_be_bytes) {
        let Some(kind) = bytes::<4>(source)? else { break };
        let is_known = [b"eXIf", b"tEXt", b"zTXt", b"iTXt"].contains(&&kind);
        if &kind == b"IEND" || (has_pixels && &kind == b"fcTL") {
            break;
        }
        has_pixels |= &kind == b"IDAT";
        if !is_known || u64::from(length) > MAX_METADATA_BYTES {
            source.seek_relative(i64::from(length) + 4)?;
            continue;
        }
        let Some(chunk) = data(source, length.into())? else { break };
        source.seek_relative(4)?;
        let mut parts = chunk.splitn(2, |byte| *byte == 0);
        let (keyword, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match &kind {
            b"eXIf" => metadata.exif = Some(chunk),
            b"tEXt" if keyword == b"exif" => metadata.exif = Some(rest.to_owned()),
            b"tEXt" => metadata.add_text(keyword, Some(rest.to_owned())),
            // A compression method comes first.
            b"zTXt" => metadata.add_text(keyword, rest.get(1..).and_then(inflated)),
            _ => metadata.add_text(keyword, international(rest)),
        }
    }
    Ok(metadata)
}

/// The text of an `iTXt` chunk after its keyword: whether it is compressed, the method, language, translated keyword.
fn international(rest: &[u8]) -> Option<Vec<u8>> {
    let (&[is_compressed, _], rest) = rest.split_first_chunk()?;
    let text = rest.splitn(3, |byte| *byte == 0).nth(2)?;
    if is_compressed == 0 { Some(text.to_owned()) } else { inflated(text) }
}

/// The bytes of hexadecimal digits after three lines: an empty one, a name and a length.
fn in_profile(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|byte| *byte == b'\n').skip(3);
    let digits: Option<Vec<u8>> = lines
        .flatten()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| char::from(*byte).to_digit(16).map(|digit| digit as u8))
        .collect();
    Some(digits?.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Decompresses a zlib stream of text, up to a limit. `image` does so for XMP in a PNG alone, so it gets one.
fn inflated(zlib: &[u8]) -> Option<Vec<u8>> {
    let text = [XMP_IN_PNG, &[0, 1, 0, 0, 0], zlib].concat();
    let mut png = PNG.to_vec();
    let header = [0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0];
    for (kind, data) in [(b"IHDR", &header[..]), (b"iTXt", &text), (b"IDAT", &[])] {
        let chunk = [kind, data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    PngDecoder::new(Cursor::new(png)).ok()?.xmp_metadata().ok()?
}

/// The checksum of a chunk.
fn crc32(chunk: &[u8]) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    !chunk.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

/// The chunks that the header of an extended file announces; the first of each kind counts.
fn of_webp(source: &mut (impl BufRead + Seek)) -> std::io::Result<Metadata> {
    let mut metadata = Metadata::default();
    let (mut has_exif, mut has_xmp) = (false, false);
    while let (Some(kind), Some(length)) = (bytes::<4>(source)?, bytes(source)?) {
        let length = u64::from(u32::from_le_bytes(length));
        let is_wanted = match &kind {
            b"VP8X" => true,
            b"EXIF" => has_exif && metadata.exif.is_none(),
            b"XMP " => has_xmp && metadata.xmp.is_none(),
            _ => false,
        };
        if !is_wanted || length > MAX_METADATA_BYTES {
            source.seek_relative((length + length % 2) as i64)?;
            continue;
        }
        let Some(chunk) = data(source, length)? else { break };
        source.seek_relative((length % 2) as i64)?;
        match &kind {
            b"EXIF" => metadata.exif = Some(chunk),
            b"XMP " => metadata.xmp = Some(chunk),
            _ => {
                let flags = chunk.first().copied().unwrap_or_default();
                (has_exif, has_xmp) = (flags & 8 != 0, flags & 4 != 0);
            }
        }
    }
    Ok(metadata)
}

/// The next bytes; `None` at the end.
fn bytes<const N: usize>(source: &mut impl BufRead) -> std::io::Result<Option<[u8; N]>> {
    Ok(data(source, N as u64)?.and_then(|bytes| bytes.try_into().ok()))
}

/// The next bytes; `None` if the source ends before.
fn data(source: &mut impl BufRead, length: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    source.by_ref().take(length).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 == length).then_some(bytes))
}

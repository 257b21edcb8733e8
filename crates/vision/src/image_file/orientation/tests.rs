//! Files whose orientation Pillow 13 finds, or not, in the same way.

use image::{DynamicImage, ImageFormat, RgbImage};

use super::super::{from_bytes, size};
use super::*;

/// A file of 16 × 8 pixels.
fn file(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(RgbImage::new(16, 8)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// EXIF data in big-endian order with one entry.
fn exif_of(kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
    let entry = [&[1, 0x12][..], &kind.to_be_bytes(), &count.to_be_bytes(), &value].concat();
    [b"MM\0\x2a\0\0\0\x08\0\x01", &entry[..], &[0; 4]].concat()
}

fn exif(orientation: u8) -> Vec<u8> {
    exif_of(3, 1, [0, orientation, 0, 0])
}

/// EXIF data without tags.
const NO_TAGS: &[u8] = b"MM\0\x2a\0\0\0\x08\0\0\0\0\0\0";

fn xmp(orientation: u8) -> Vec<u8> {
    format!("<x:xmpmeta><rdf:Description tiff:Orientation=\"{orientation}\"/></x:xmpmeta>").into()
}

/// A zlib stream with one stored block.
fn zlib(data: &[u8]) -> Vec<u8> {
    let (mut a, mut b) = (1_u32, 0);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let length = data.len() as u16;
    let header = [&[0x78, 1, 1][..], &length.to_le_bytes(), &(!length).to_le_bytes()].concat();
    [&header, data, &(b << 16 | a).to_be_bytes()].concat()
}

fn chunk(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = [kind, &parts.concat()[..]].concat();
    let length = (body.len() as u32 - 4).to_be_bytes();
    [&length, &body[..], &crc32fast::hash(&body).to_be_bytes()].concat()
}

fn text(keyword: &[u8], value: &[u8]) -> Vec<u8> {
    chunk(b"tEXt", &[keyword, b"\0", value])
}

fn compressed_text(keyword: &[u8], value: &[u8]) -> Vec<u8> {
    chunk(b"zTXt", &[keyword, b"\0\0", &zlib(value)])
}

fn international(keyword: &[u8], value: &[u8]) -> Vec<u8> {
    chunk(b"iTXt", &[keyword, b"\0\0\0\0\0", value])
}

/// EXIF data as ImageMagick writes them, in lines of 36 bytes.
fn profile(exif: &[u8]) -> Vec<u8> {
    let digits: Vec<String> = exif.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<String> = digits.chunks(36).map(<[String]>::concat).collect();
    format!("\nexif\n{:8}\n{}\n", exif.len(), lines.join("\n")).into()
}

/// A PNG with chunks before and after its pixels.
fn png(before: &[Vec<u8>], after: &[Vec<u8>]) -> Vec<u8> {
    let png = file(ImageFormat::Png);
    let (header, rest) = png.split_at(33);
    let (pixels, end) = rest.split_at(rest.len() - 12);
    [header, &before.concat(), pixels, &after.concat(), end].concat()
}

/// A JPEG with segments.
fn jpeg(segments: &[Vec<u8>]) -> Vec<u8> {
    let jpeg = file(ImageFormat::Jpeg);
    let whole = |segment: &Vec<u8>| {
        let length = (segment.len() as u16 + 2).to_be_bytes();
        [&[0xff, 0xe1], &length, &segment[..]].concat()
    };
    let segments: Vec<u8> = segments.iter().flat_map(whole).collect();
    [&jpeg[..2], &segments, &jpeg[2..]].concat()
}

/// A WebP with chunks after its pixels.
fn webp(flags: u8, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let webp = file(ImageFormat::WebP);
    let mut rest = [b"WEBPVP8X\x0a\0\0\0", &[flags, 0, 0, 0, 15, 0, 0, 7, 0, 0][..]].concat();
    rest.extend(&webp[12..]);
    for (kind, data) in chunks {
        rest.extend([&kind[..], &(data.len() as u32).to_le_bytes(), data].concat());
        rest.resize(rest.len().next_multiple_of(2), 0);
    }
    [&b"RIFF"[..], &(rest.len() as u32).to_le_bytes(), &rest].concat()
}

#[track_caller]
fn assert_rotated(files: &[(&str, bool, Vec<u8>)]) {
    for (name, is_rotated, file) in files {
        let expected = if *is_rotated { (8, 16) } else { (16, 8) };
        assert_eq!(size(file).unwrap(), expected, "{name}");
        assert_eq!(from_bytes(file).unwrap().dimensions(), expected, "{name}");
    }
}

#[test]
fn exif_data_of_a_png_are_found_with_and_without_a_prefix_before_and_after_the_pixels() {
    let chunk = |data: &[&[u8]]| chunk(b"eXIf", data);
    let raw = EXIF_PROFILE;
    assert_rotated(&[
        ("no prefix", true, png(&[chunk(&[&exif(6)])], &[])),
        ("a prefix", true, png(&[chunk(&[EXIF, &exif(6)])], &[])),
        ("after the pixels", true, png(&[], &[chunk(&[&exif(6)])])),
        ("the last counts", true, png(&[chunk(&[&exif(3)]), chunk(&[&exif(6)])], &[])),
        ("compressed profile", true, png(&[compressed_text(raw, &profile(&exif(6)))], &[])),
        ("profile with a prefix", true, {
            png(&[text(raw, &profile(&[EXIF, &exif(6)].concat()))], &[])
        }),
        ("international profile", true, png(&[international(raw, &profile(&exif(6)))], &[])),
        ("profile after the pixels", true, {
            png(&[], &[compressed_text(raw, &profile(&exif(6)))])
        }),
        ("the profile is second", false, {
            png(&[chunk(&[&exif(3)]), text(raw, &profile(&exif(6)))], &[])
        }),
        ("a profile of something else", false, {
            png(&[text(b"Raw profile type iptc", &profile(&exif(6)))], &[])
        }),
        ("bytes as a text", true, png(&[text(b"exif", &exif(6))], &[])),
        ("broken", false, png(&[chunk(&[b"junkjunkjunk"])], &[])),
        ("broken profile", false, png(&[text(raw, b"\nexif\n 4\nzz")], &[])),
    ]);
}

#[test]
fn xmp_data_count_if_the_exif_data_have_no_orientation() {
    let exif_chunk = |data: &[u8]| chunk(b"eXIf", &[data]);
    let with = |value: &str| png(&[international(XMP_IN_PNG, value.as_bytes())], &[]);
    let xmp_chunk = || international(XMP_IN_PNG, &xmp(6));
    let z_chunk = chunk(b"iTXt", &[XMP_IN_PNG, b"\0\x01\0en\0\0", &zlib(&xmp(6))]);
    assert_rotated(&[
        ("attribute", true, png(&[xmp_chunk()], &[])),
        ("element", true, with("<tiff:Orientation>6</tiff:Orientation>")),
        ("after the pixels", true, png(&[], &[xmp_chunk()])),
        ("compressed", true, png(&[z_chunk], &[])),
        ("text", true, png(&[text(XMP_IN_PNG, &xmp(6))], &[])),
        ("compressed text", true, png(&[compressed_text(XMP_IN_PNG, &xmp(6))], &[])),
        ("single quotes", false, with("tiff:Orientation='6'")),
        ("spaces", false, with("tiff:Orientation = \"6\"")),
        (
            "names before",
            true,
            with("tiff:OrientationX tiff:Orientation=\"x\" tiff:Orientation=\"6\""),
        ),
        ("no tags in exif", true, png(&[exif_chunk(NO_TAGS), xmp_chunk()], &[])),
        ("empty exif", true, png(&[exif_chunk(b""), xmp_chunk()], &[])),
        ("1 in exif", false, png(&[exif_chunk(&exif(1)), xmp_chunk()], &[])),
        ("9 in exif", false, png(&[exif_chunk(&exif(9)), xmp_chunk()], &[])),
    ]);
}

#[test]
fn the_orientation_may_be_any_integer_in_any_byte_order() {
    let png = |exif: &[u8]| png(&[chunk(b"eXIf", &[exif])], &[]);
    let short = |header: &[u8], value: [u8; 4]| {
        let little = header.starts_with(b"I");
        let mut fields =
            [vec![0, 0, 0, 8], vec![0, 1], vec![1, 0x12], vec![0, 3], vec![0, 0, 0, 1]];
        fields.iter_mut().filter(|_| little).for_each(|field| field.reverse());
        png(&[header, &fields.concat(), &value, &[0; 4]].concat())
    };
    let elsewhere = [exif_of(3, 3, [0, 0, 0, 26]), vec![0, 6, 0, 1, 0, 1]].concat();
    assert_rotated(&[
        ("big-endian", true, short(b"MM\0\x2a", [0, 6, 0, 0])),
        ("little-endian", true, short(b"II\x2a\0", [6, 0, 0, 0])),
        ("big-endian, swapped version", true, short(b"MM\x2a\0", [0, 6, 0, 0])),
        ("little-endian, swapped version", true, short(b"II\0\x2a", [6, 0, 0, 0])),
        ("long", true, png(&exif_of(4, 1, [0, 0, 0, 6]))),
        ("signed byte", true, png(&exif_of(6, 1, [6, 0, 0, 0]))),
        ("signed short", true, png(&exif_of(8, 1, [0, 6, 0, 0]))),
        ("signed long", true, png(&exif_of(9, 1, [0, 0, 0, 6]))),
        ("offset", true, png(&exif_of(13, 1, [0, 0, 0, 6]))),
        ("two shorts", true, png(&exif_of(3, 2, [0, 6, 0, 1]))),
        ("three shorts elsewhere", true, png(&elsewhere)),
        ("byte", false, png(&exif_of(1, 1, [6, 0, 0, 0]))),
        ("no values", false, png(&exif_of(3, 0, [0, 6, 0, 0]))),
        ("unknown type", false, png(&exif_of(99, 1, [0, 6, 0, 0]))),
        ("cut", false, png(&exif(6)[..20])),
        ("table elsewhere", false, png(b"MM\0\x2a\xff\xff\xff\xff")),
    ]);
}

#[test]
fn segments_of_a_jpeg_have_exif_or_xmp_data() {
    let prefixed = |data: &[u8]| [EXIF, data].concat();
    let xmp = |orientation| [XMP_IN_JPEG, &xmp(orientation)].concat();
    let exif_6 = exif(6);
    let (first, second) = exif_6.split_at(12);
    assert_rotated(&[
        ("exif", true, jpeg(&[prefixed(&exif(6))])),
        ("two prefixes", true, jpeg(&[prefixed(&prefixed(&exif(6)))])),
        ("no prefix", false, jpeg(&[exif(6)])),
        ("the first counts", true, jpeg(&[prefixed(&exif(6)), prefixed(&exif(3))])),
        ("in two segments", true, jpeg(&[prefixed(first), prefixed(second)])),
        ("xmp", true, jpeg(&[xmp(6)])),
        ("the last xmp counts", true, jpeg(&[xmp(3), xmp(6)])),
        ("exif before xmp", true, jpeg(&[xmp(3), prefixed(&exif(6))])),
        ("no tags in exif", true, jpeg(&[xmp(6), prefixed(NO_TAGS)])),
    ]);
}

#[test]
fn chunks_of_a_webp_have_exif_or_xmp_data() {
    assert_rotated(&[
        ("exif", true, webp(8, &[(b"EXIF", &exif(6))])),
        ("a prefix", true, webp(8, &[(b"EXIF", &[EXIF, &exif(6)].concat())])),
        ("xmp", true, webp(4, &[(b"XMP ", &xmp(6))])),
        ("not announced", false, webp(0, &[(b"EXIF", &exif(6))])),
        ("the first counts", true, webp(8, &[(b"EXIF", &exif(6)), (b"EXIF", &exif(3))])),
        ("no tags in exif", true, webp(12, &[(b"EXIF", NO_TAGS), (b"XMP ", &xmp(6))])),
        ("after an odd chunk", true, webp(8, &[(b"XXXX", b"abc"), (b"EXIF", &exif(6))])),
    ]);
}

#[test]
fn every_orientation_is_that_of_exif() {
    for orientation in 1..=8 {
        let expected = Orientation::from_exif(orientation).unwrap();
        let mut png = Cursor::new(png(&[text(XMP_IN_PNG, &xmp(orientation))], &[]));
        assert_eq!(find(&mut png).unwrap(), expected);
        assert_eq!(png.position(), 0);
    }
    let gif = file(ImageFormat::Gif);
    assert_eq!(find(&mut Cursor::new(gif)).unwrap(), Orientation::NoTransforms);
}

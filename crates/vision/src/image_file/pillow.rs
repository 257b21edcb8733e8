//! Files of all kinds, compared with what Pillow reads from them (`scripts/parity/make_image_fixtures.py`).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::{from_bytes, size};

#[derive(Deserialize)]
struct Case {
    name: String,
    file: String,
    /// What `transformers` reads; `None` for an error.
    size: Option<(u32, u32)>,
    rgb: Option<String>,
}

impl Case {
    fn file(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.file).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../tests/fixtures/image_files.json");
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), 56);
    cases
}

/// Pillow clips its levels at 255, so that nearly all pixels are white.
const GRAY_16: &str = "png 16 bits gray";

/// Pillow fills the rest of the canvas with the background color.
const ON_CANVAS: &str = "smaller than its canvas";

/// Whether a file is read otherwise than by Pillow.
fn is_other(name: &str) -> bool {
    name == GRAY_16 || name.ends_with(ON_CANVAS)
}

#[test]
fn pixels_of_every_kind_of_file_match_pillow() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| !is_other(&case.name)) {
        let (Some(expected_size), Some(rgb)) = (case.size, &case.rgb) else { continue };
        let image = from_bytes(&case.file());
        let image = image.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(image.dimensions(), expected_size, "{}", case.name);
        assert_eq!(size(&case.file()).unwrap(), expected_size, "{}", case.name);
        let expected = BASE64_STANDARD.decode(rgb).unwrap();
        assert_eq!(image.as_raw().len(), expected.len());
        let pairs = image.as_raw().iter().zip(&expected);
        let largest = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // Decoders of JPEG may round differently.
        let most = if case.name.starts_with("jpeg") { 2 } else { 0 };
        assert!(largest <= most, "{}: {largest} levels", case.name);
        compared += 1;
    }
    assert_eq!(compared, 38);
}

#[test]
fn gray_of_16_bits_has_its_upper_8_bits() {
    let case = cases().into_iter().find(|case| case.name == GRAY_16).unwrap();
    let image = from_bytes(&case.file()).unwrap();
    let level = |x: u32, y: u32| (((x * 2711 + y * 977 + 200) % 65_536) >> 8) as u8;
    for (x, y, pixel) in image.enumerate_pixels() {
        assert_eq!(pixel.0, [level(x, y); 3], "{x} {y}");
    }
}

#[test]
fn what_the_first_frame_of_a_gif_leaves_of_its_canvas_is_black() {
    let cases = cases();
    let cases: Vec<&Case> = cases.iter().filter(|case| case.name.ends_with(ON_CANVAS)).collect();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let image = from_bytes(&case.file()).unwrap();
        assert_eq!(image.dimensions(), (20, 12));
        let expected = BASE64_STANDARD.decode(case.rgb.as_ref().unwrap()).unwrap();
        for ((x, y, pixel), expected) in image.enumerate_pixels().zip(expected.chunks(3)) {
            let is_inside = (3..19).contains(&x) && (2..10).contains(&y);
            let expected = if is_inside { expected } else { &[0; 3] };
            assert_eq!(pixel.0, expected, "{}: {x} {y}", case.name);
        }
    }
}

#[test]
fn what_pillow_refuses_is_an_error() {
    let refused: Vec<Case> = cases().into_iter().filter(|case| case.rgb.is_none()).collect();
    assert_eq!(refused.len(), 15);
    for case in refused {
        let error = from_bytes(&case.file()).err().map(|error| error.to_string());
        let message = error.unwrap_or_else(|| panic!("{} is read", case.name));
        assert!(message.starts_with("cannot read the image in the request: "), "{message}");
    }
}

#[test]
fn a_jpeg_is_whole_up_to_its_last_marker() {
    let named = |name: &str| {
        let case = cases().into_iter().find(|case| case.name == name);
        case.unwrap().file()
    };
    for name in ["jpeg", "jpeg progressive", "jpeg cmyk", "jpeg orientation 6"] {
        let whole = named(name);
        let image = from_bytes(&whole).unwrap();
        let with_more = [&whole[..], b"anything \xff\xd8 after it"].concat();
        assert_eq!(from_bytes(&with_more).unwrap(), image, "{name}");
        for missing in [1, 2, 3, 20] {
            let message = from_bytes(&whole[..whole.len() - missing]).unwrap_err().to_string();
            assert!(message.ends_with("the file is truncated"), "{name}: {message}");
        }
    }
    // The thumbnail in a segment is whole, the image is not.
    let jpeg = named("jpeg");
    let thumbnail = [b"\xff\xe1", &(jpeg.len() as u16 + 2).to_be_bytes()[..], &jpeg].concat();
    let cut = [&jpeg[..2], &thumbnail, &jpeg[2..jpeg.len() - 20]].concat();
    assert!(from_bytes(&cut).unwrap_err().to_string().ends_with("the file is truncated"));
}

#[test]
fn no_damaged_file_makes_a_decoder_panic() {
    let mut refused = 0;
    for case in cases() {
        let whole = case.file();
        for draw in 0..60_usize {
            let mut bytes = whole.clone();
            let at = draw * 7919 % bytes.len().max(1);
            match draw % 3 {
                0 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (draw % 8)),
            }
            let (read, header) = (from_bytes(&bytes), size(&bytes));
            refused += usize::from(read.is_err());
            // What is read has the size of its header.
            if let (Ok(image), Ok(size)) = (read, header) {
                assert_eq!(image.dimensions(), size, "{}", case.name);
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

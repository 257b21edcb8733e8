use image::{DynamicImage, ImageFormat};
use proptest::prelude::*;

use super::*;

fn at(x: i64, y: i64) -> Pixel {
    Pixel { x, y }
}

#[test]
fn values_must_fit_the_size() {
    assert!(Mask::new(2, 3, vec![0; 6]).is_some());
    assert!(Mask::new(2, 3, vec![0; 5]).is_none());
    assert!(Mask::new(0, 3, vec![]).is_none());
    assert!(Mask::new(usize::MAX, 2, vec![0; 6]).is_none());
}

#[test]
fn rounding_starts_at_128_and_positive_at_1() {
    let mask = Mask::new(5, 1, vec![0, 1, 127, 128, 255]).unwrap();
    let inside = |rule| (0..5).map(|x| mask.contains(at(x, 0), rule)).collect::<Vec<_>>();
    assert_eq!(inside(Inside::Rounded), [false, false, false, true, true]);
    assert_eq!(inside(Inside::Positive), [false, true, true, true, true]);
}

#[test]
fn pixels_beyond_the_mask_are_outside() {
    let mask = Mask::new(2, 1, vec![255, 255]).unwrap();
    for (x, y) in [(-1, 0), (2, 0), (0, -1), (0, 1), (i64::MIN, 0), (0, i64::MAX)] {
        assert!(!mask.contains(at(x, y), Inside::Positive), "{x} {y}");
    }
}

#[test]
fn columns_come_before_rows() {
    let mask = Mask::new(3, 2, vec![0, 0, 255, 0, 0, 0]).unwrap();
    assert!(mask.contains(at(2, 0), Inside::Rounded));
    assert!(!mask.contains(at(0, 2), Inside::Rounded));
}

#[test]
fn points_count_by_share_and_by_any() {
    let mask = Mask::new(2, 1, vec![0, 255]).unwrap();
    let points = [at(0, 0), at(1, 0), at(5, 0), at(1, 0)];
    assert_eq!(mask.share(&points, Inside::Rounded), 0.5);
    assert!(mask.any(&points, Inside::Rounded));
    assert_eq!(mask.share(&[], Inside::Rounded), 0.0);
    assert!(!mask.any(&[], Inside::Rounded));
}

#[test]
fn the_first_channel_of_a_coloured_file_is_the_mask() {
    let pixels = image::RgbImage::from_raw(2, 1, vec![255, 0, 0, 0, 255, 255]).unwrap();
    let mut file = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(pixels).write_to(&mut file, ImageFormat::Png).unwrap();
    let mask = Mask::decode(file.get_ref()).unwrap();
    assert!(mask.contains(at(0, 0), Inside::Rounded));
    assert!(!mask.contains(at(1, 0), Inside::Rounded));
}

proptest! {
    #[test]
    fn clipped_counts_are_those_of_single_pixels(
        values in prop::collection::vec(any::<bool>(), 12),
        (x0, y0) in (-6_i64..9, -6_i64..9),
        (width, height) in (1_i64..9, 1_i64..9),
    ) {
        let mask = Mask::new(4, 3, values.into_iter().map(u8::from).collect()).unwrap();
        let sums = SummedArea::new(&mask, Inside::Positive);
        let (columns, rows) = (x0..x0 + width, y0..y0 + height);
        let pixels = columns.clone().flat_map(|x| rows.clone().map(move |y| (x, y)));
        let is_inside = |(x, y): &(i64, i64)| {
            mask.contains(at((*x).clamp(0, 3), (*y).clamp(0, 2)), Inside::Positive)
        };
        let expected = pixels.filter(is_inside).count() as u128;
        prop_assert_eq!(sums.count_clipped(columns, rows), expected);
    }
}

#[test]
fn a_mask_is_read_from_the_json_that_it_writes() {
    let mask = Mask::new(3, 2, vec![0, 0, 255, 255, 255, 7]).unwrap();
    let written = mask.to_json();
    assert_eq!(written["runs"].to_string(), "[[0,2],[255,3],[7,1]]");
    assert_eq!(Mask::from_json(&written), Some(mask));
    for wrong in [
        r#"{"width": 3, "height": 2, "runs": [[0, 5]]}"#,
        r#"{"width": 3, "height": 2, "runs": [[0, 7]]}"#,
        r#"{"width": 3, "height": 2, "runs": [[256, 6]]}"#,
        r#"{"width": 3, "height": 2}"#,
        r#"{"width": 1000000, "height": 1000000, "runs": [[0, 1000000000000]]}"#,
        "null",
    ] {
        assert_eq!(Mask::from_json(&serde_json::from_str(wrong).unwrap()), None, "{wrong}");
    }
}

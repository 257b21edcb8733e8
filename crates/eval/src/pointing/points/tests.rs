use super::*;
use crate::pointing::pixel::index;

fn mask(width: usize, height: usize) -> Mask {
    Mask::new(width, height, vec![0; width * height]).unwrap()
}

fn pixels(points: &[(i64, i64)]) -> Vec<Pixel> {
    points.iter().map(|(x, y)| Pixel { x: *x, y: *y }).collect()
}

#[test]
fn tuples_have_no_space_but_behind_the_comma() {
    let mask = mask(100, 10);
    for (answer, expected) in [
        ("(0.5,0.5) (0.5, 0.5) (0.5,\n0.5)", &[(50, 5), (50, 5), (50, 5)][..]),
        ("( 0.5, 0.5) (0.5 , 0.5) (0.5, 0.5 )", &[]),
        ("(0.5) (0.5, 0.5, 0.5)", &[]),
        ("(-0.001, 1.0)", &[(0, 10)]),
        ("(-0.5, +2)", &[(-50, 20)]),
        ("(.5, 0.5) (0.5, 1e-1)", &[]),
        ("(٠.٥, 0.5)", &[(50, 5)]),
    ] {
        assert_eq!(tuples(answer, &mask), pixels(expected), "{answer}");
    }
}

#[test]
fn pairs_lie_on_0_to_1000_unless_one_has_a_decimal_point() {
    let mask = mask(100, 10);
    for (answer, expected) in [
        ("[500, 500] ( 500 , 500 ] [[500,500]]", &[(50, 5), (50, 5), (50, 5)][..]),
        ("[0.5, 1] [500., 0.5]", &[(50, 10), (50_000, 5)]),
        ("[1, 1] [999, 1000]", &[(0, 0), (99, 10)]),
        ("[1, 2, 3] [1 2] [1e2, 3]", &[]),
    ] {
        assert_eq!(pairs(answer, &mask), pixels(expected), "{answer}");
    }
}

#[test]
fn only_the_first_fenced_block_counts() {
    let mask = mask(100, 10);
    let point = "[{\"point_2d\": [500, 500]}]";
    for (answer, expected) in [
        (format!("```json\n{point}\n```"), &[(50, 5)][..]),
        (format!("a ```\n{point}``` b"), &[(50, 5)]),
        (format!("```json\n[]\n```\n```json\n{point}\n```"), &[]),
        (format!("```json {point} ```"), &[]),
        (format!("```é_9\n{point}\n```"), &[(50, 5)]),
        (format!("```Ⓑ\n{point}\n```"), &[]),
        (format!("```json\n{point}"), &[]),
        (point.to_owned(), &[]),
    ] {
        assert_eq!(fenced(&answer, &mask), pixels(expected), "{answer}");
    }
}

#[test]
fn what_is_no_number_lies_outside() {
    assert_eq!(index(f64::NAN), i64::MIN);
    assert_eq!(index(f64::INFINITY), i64::MAX);
    assert_eq!((index(-0.9), index(0.9), index(-1.1)), (0, 0, -1));
}

#[test]
fn absolute_values_are_compared_as_python_compares_them() {
    use super::easi::{Size, Target, targets};
    let size = Size { width: 100, height: 10 };
    let point = |x, y| vec![Target::Point { x, y }];
    assert_eq!(targets("[{\"point_2d\": [1.5, -1]}]", size), point(1.5, -1.0));
    assert_eq!(targets("[{\"point_2d\": [1.6, -1]}]", size), point(0.0016, -0.001));
    assert_eq!(targets("[{\"point_2d\": [1001, -1]}]", size), point(10.01, -0.1));
    assert_eq!(targets("(1.6, -1)", size), point(0.016, -0.1));
    // A second coordinate that is no number never counts as larger; a first one that is none is never exceeded.
    let second = targets("[{\"point_2d\": [300, NaN]}]", size);
    assert!(matches!(second[..], [Target::Point { x: 0.3, y }] if y.is_nan()));
    let first = targets("[{\"point_2d\": [NaN, 300]}]", size);
    assert!(matches!(first[..], [Target::Point { x, y: 30.0 }] if x.is_nan()));
}

#[test]
fn a_rectangle_without_pixels_is_none() {
    use super::easi::{Size, Target, targets};
    let size = Size { width: 100, height: 10 };
    assert!(targets("(1, 2, 1, 9)", size).is_empty());
    assert!(targets("(2.5, 0, 1.5, 9)", size).is_empty());
    let target = Target::Rectangle { columns: 2..4, rows: 0..9 };
    assert_eq!(targets("(3.5, 9, 1.5, 0)", size), [target]);
}

use super::*;

fn targets(answer: &str, mask: &Mask) -> Vec<Target> {
    easi::targets(answer, Size { width: mask.width(), height: mask.height() })
}

fn shared(answer: &str, mask: &Mask) -> f64 {
    share(&targets(answer, mask), mask)
}

/// A mask whose left half is inside.
fn halved(width: usize, height: usize) -> Mask {
    let values = (0..width * height).map(|at| u8::from(at % width < width / 2));
    Mask::new(width, height, values.collect()).unwrap()
}

#[test]
fn pixels_of_a_huge_rectangle_are_counted_on_the_edges() {
    let mask = halved(4, 2);
    // Columns 0 to 2: two of three are inside; all rows are alike.
    assert!((shared("(0, 0, 3, 1000000000)", &mask) - 2.0 / 3.0).abs() < 1e-12);
    // All but one column in a billion lie right of the image.
    assert!(shared("(0, 0, 1000000000, 1)", &mask) < 1e-8);
    assert!(shared("(-1000000000, 0, 4, 1)", &mask) > 1.0 - 1e-8);
    assert!((shared("(-1000000000, -7, 1000000000, 7)", &mask) - 0.5).abs() < 1e-8);
    assert!(shared("(-1000000000000000000000, -5, 99999999999999999999999, 5)", &mask) <= 1.0);
}

#[test]
fn thousands_of_targets_are_counted_at_once() {
    let mask = halved(1000, 1000);
    let rectangles = "(0, 0, 100000000, 100000000), ".repeat(20_000);
    assert!(shared(&rectangles, &mask) < 0.01);
    let points = "{\"point_2d\": [9, 9]}, ".repeat(20_000);
    assert_eq!(shared(&format!("[{}]", points.trim_end_matches(", ")), &mask), 1.0);
    let open = "(1,".repeat(200_000);
    assert_eq!(shared(&open, &mask), 0.0);
    assert_eq!(shared(&"[".repeat(200_000), &mask), 0.0);
    assert_eq!(shared(&"{'a':".repeat(200_000), &mask), 0.0);
}

#[test]
fn the_targets_are_shown_as_they_were_read() {
    let mask = halved(10, 10);
    let extracted = |answer: &str| easi::shown(&targets(answer, &mask));
    assert_eq!(extracted("(5, 1), (3, 4, 1, 2)").as_deref(), Some("(0.5, 0.1), (1, 2, 3, 4)"));
    assert_eq!(extracted("none"), None);
}

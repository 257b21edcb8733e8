//! The overlap of two frames.

use super::homography::{Homography, Point, area};

/// The share of a frame of `width` × `height` that another frame of `size`, projected by `homography`,
/// covers: from 0 to 1, computed exactly by polygon clipping.
///
/// `None` if `homography` is not a plausible view of a frame.
#[must_use]
pub fn overlap(
    homography: &Homography,
    size: (f64, f64),
    (width, height): (f64, f64),
) -> Option<f64> {
    let quad = homography.project_frame(size.0, size.1)?;
    let visible = clip_to_frame(&quad, width, height);
    Some((area(&visible) / (width * height)).clamp(0.0, 1.0))
}

/// The part of a convex polygon inside a frame (Sutherland and Hodgman 1974).
fn clip_to_frame(corners: &[Point], width: f64, height: f64) -> Vec<Point> {
    // Each side as a function of a point: its distance inside the side.
    let sides: [&dyn Fn(Point) -> f64; 4] =
        [&|p| p.0, &|p| width - p.0, &|p| p.1, &|p| height - p.1];
    let mut inside = corners.to_vec();
    for depth in sides {
        inside = clip(&inside, depth);
    }
    inside
}

/// The part of a polygon where `depth`, which is linear, is not negative.
fn clip(corners: &[Point], depth: &dyn Fn(Point) -> f64) -> Vec<Point> {
    let next = corners.iter().cycle().skip(1);
    let mut kept = Vec::with_capacity(corners.len() + 1);
    for (&a, &b) in corners.iter().zip(next) {
        let (in_a, in_b) = (depth(a), depth(b));
        if in_a >= 0.0 {
            kept.push(a);
        }
        if (in_a >= 0.0) != (in_b >= 0.0) {
            let t = in_a / (in_a - in_b);
            kept.push((a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1)));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: (f64, f64) = (200.0, 100.0);

    fn share(entries: [f64; 9]) -> f64 {
        overlap(&Homography(entries), FRAME, FRAME).unwrap()
    }

    #[test]
    fn the_identity_covers_everything() {
        assert_eq!(share(Homography::IDENTITY.0), 1.0);
    }

    #[test]
    fn a_shift_covers_the_product_of_the_remaining_sides() {
        let shifted = share([1.0, 0.0, 50.0, 0.0, 1.0, -20.0, 0.0, 0.0, 1.0]);
        assert!((shifted - 0.75 * 0.8).abs() < 1e-12);
    }

    #[test]
    fn a_zoom_in_covers_its_squared_scale() {
        let zoomed = share([0.5, 0.0, 10.0, 0.0, 0.5, 20.0, 0.0, 0.0, 1.0]);
        assert!((zoomed - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_disjoint_frame_covers_nothing() {
        assert_eq!(share([1.0, 0.0, 300.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]), 0.0);
    }

    #[test]
    fn a_zoom_out_covers_at_most_everything() {
        assert_eq!(share([3.0, 0.0, -200.0, 0.0, 3.0, -100.0, 0.0, 0.0, 1.0]), 1.0);
    }

    #[test]
    fn a_rotated_square_covers_an_octagon() {
        let side = 2.0f64.sqrt() / 2.0;
        let rotated =
            Homography([side, -side, 50.0, side, side, 50.0 - 2.0 * side * 50.0, 0.0, 0.0, 1.0]);
        let square = (100.0, 100.0);
        // Two unit squares, one rotated by 45 degrees, share 2·√2 − 2.
        let expected = 2.0 * 2.0f64.sqrt() - 2.0;
        let visible = overlap(&rotated, square, square).unwrap();
        assert!((visible - expected).abs() < 1e-9, "{visible} {expected}");
    }

    proptest! {
        #[test]
        fn the_clipped_area_matches_sampled_points(
            angle in -0.5..0.5f64, zoom in 0.5..1.8f64, x in -80.0..80.0f64, y in -50.0..50.0f64,
            tilt in -1e-3..1e-3f64,
        ) {
            let (sin, cos) = (zoom * angle.sin(), zoom * angle.cos());
            let map = Homography([cos, -sin, x, sin, cos, y, tilt, tilt / 2.0, 1.0]);
            let quad = map.project_frame(FRAME.0, FRAME.1).unwrap();
            let in_quad = |p: Point| (0..4).all(|i| {
                let (a, b) = (quad[i], quad[(i + 1) % 4]);
                (b.0 - a.0) * (p.1 - a.1) - (b.1 - a.1) * (p.0 - a.0) >= 0.0
            });
            let counted = (0..20_000)
                .filter(|i| in_quad((f64::from(i % 200) + 0.5, f64::from(i / 200) + 0.5)))
                .count() as f64 / 20_000.0;
            let exact = overlap(&map, FRAME, FRAME).unwrap();
            prop_assert!((exact - counted).abs() < 0.01, "{exact} {counted}");
        }
    }
}

//! Corners: FAST's test, Harris' measure, and a place between pixels.

use super::pyramid::Plane;

/// Corners stay so far from the edges that what describes them lies inside.
pub(in crate::keyframes) const BORDER: usize = 17;

/// How much brighter or darker than the middle the arc must be: first choice, and where that finds
/// too few.
const THRESHOLDS: [u8; 2] = [20, 7];

/// FAST's circle of 16 pixels around the middle, in order.
const CIRCLE: [(isize, isize); 16] = [
    (0, -3),
    (1, -3),
    (2, -2),
    (3, -1),
    (3, 0),
    (3, 1),
    (2, 2),
    (1, 3),
    (0, 3),
    (-1, 3),
    (-2, 2),
    (-3, 1),
    (-3, 0),
    (-3, -1),
    (-2, -2),
    (-1, -3),
];

/// Length of the arc of the circle that makes a corner.
const ARC: u32 = 9;

/// Weight of the squared trace in Harris' measure.
const HARRIS_K: f32 = 0.04;

/// A corner at a pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Corner {
    pub(super) column: usize,
    pub(super) row: usize,
    /// Harris' measure.
    pub(super) strength: f32,
}

/// The corners of `plane` that are stronger than their neighbours; at least `enough` of them where
/// the plane has so many faint ones.
#[inline(always)]
pub(super) fn find(plane: &Plane, enough: usize) -> Vec<Corner> {
    let mut corners = Vec::new();
    for threshold in THRESHOLDS {
        corners = strongest_of_neighbours(plane, candidates(plane, threshold));
        if corners.len() >= 2 * enough {
            break;
        }
    }
    corners
}

/// All pixels that pass FAST's test, row by row.
#[inline(always)]
fn candidates(plane: &Plane, threshold: u8) -> Vec<Corner> {
    let width = plane.width;
    let circle = CIRCLE.map(|(x, y)| y * width as isize + x);
    let mut found = Vec::new();
    let mut likely = vec![0u8; width];
    for row in BORDER..plane.height - BORDER {
        let line = |offset: isize| {
            let start = ((row * width + BORDER) as isize + offset) as usize;
            &plane.pixels[start..][..width - 2 * BORDER]
        };
        mark_likely(
            line(0),
            [line(circle[0]), line(circle[4]), line(circle[8]), line(circle[12])],
            threshold,
            &mut likely,
        );
        for (column, _) in likely[..width - 2 * BORDER].iter().enumerate().filter(|(_, l)| **l != 0)
        {
            let at = row * width + BORDER + column;
            if is_corner(plane, at, &circle, threshold) {
                let column = column + BORDER;
                found.push(Corner { column, row, strength: harris(plane, column, row) });
            }
        }
    }
    found
}

/// Marks the pixels where two of the four outermost pixels of the circle that are not opposite to
/// each other are both much brighter or both much darker: every long arc holds such two.
#[inline(always)]
fn mark_likely(middle: &[u8], [top, right, bottom, left]: [&[u8]; 4], by: u8, likely: &mut [u8]) {
    let across = right.iter().zip(left);
    let pixels = middle.iter().zip(top.iter().zip(bottom)).zip(across);
    for (mark, ((&middle, (&top, &bottom)), (&right, &left))) in likely.iter_mut().zip(pixels) {
        let (high, low) = (middle.saturating_add(by), middle.saturating_sub(by));
        let bright = ((top > high) | (bottom > high)) & ((right > high) | (left > high));
        let dark = ((top < low) | (bottom < low)) & ((right < low) | (left < low));
        *mark = u8::from(bright | dark);
    }
}

/// Whether an arc of the circle around pixel `at` is all brighter or all darker by `threshold`.
#[inline(always)]
fn is_corner(plane: &Plane, at: usize, circle: &[isize; 16], threshold: u8) -> bool {
    let middle = plane.pixels[at];
    let (high, low) = (middle.saturating_add(threshold), middle.saturating_sub(threshold));
    let (mut bright, mut dark) = (0u32, 0u32);
    for (bit, offset) in circle.iter().enumerate() {
        let pixel = plane.pixels[(at as isize + offset) as usize];
        bright |= u32::from(pixel > high) << bit;
        dark |= u32::from(pixel < low) << bit;
    }
    has_arc(bright) || has_arc(dark)
}

/// Whether [`ARC`] bits in a row are set in the circle of 16 bits.
fn has_arc(circle: u32) -> bool {
    if circle.count_ones() < ARC {
        return false;
    }
    let mut runs = circle | circle << 16;
    for shift in [1, 2, 4] {
        runs &= runs >> shift;
    }
    (runs & runs >> 1) != 0
}

/// Harris' measure over the 7 × 7 pixels around a corner, from gradients by Sobel, with brightness
/// between 0 and 1.
#[inline(always)]
fn harris(plane: &Plane, column: usize, row: usize) -> f32 {
    let (mut xx, mut yy, mut xy) = (0i32, 0i32, 0i32);
    for y in row - 3..=row + 3 {
        let line = |y: usize| &plane.pixels[y * plane.width + column - 4..][..9];
        let (above, here, below) = (line(y - 1), line(y), line(y + 1));
        for x in 1..8 {
            let at = |line: &[u8], x: usize| i32::from(line[x]);
            let across = at(above, x + 1) - at(above, x - 1)
                + 2 * (at(here, x + 1) - at(here, x - 1))
                + at(below, x + 1)
                - at(below, x - 1);
            let down = at(below, x - 1) - at(above, x - 1)
                + 2 * (at(below, x) - at(above, x))
                + at(below, x + 1)
                - at(above, x + 1);
            xx += across * across;
            yy += down * down;
            xy += across * down;
        }
    }
    let unit = (4.0 * 7.0 * 255.0f32).powi(-2);
    let (xx, yy, xy) = (xx as f32 * unit, yy as f32 * unit, xy as f32 * unit);
    xx * yy - xy * xy - HARRIS_K * (xx + yy) * (xx + yy)
}

/// Keeps the candidates, sorted by row and column, that none of their eight neighbours surpasses.
fn strongest_of_neighbours(plane: &Plane, candidates: Vec<Corner>) -> Vec<Corner> {
    let mut starts = vec![0; plane.height + 1];
    for corner in &candidates {
        starts[corner.row + 1] += 1;
    }
    for row in 0..plane.height {
        starts[row + 1] += starts[row];
    }
    let surpassed = |corner: &Corner| {
        (corner.row - 1..=corner.row + 1).any(|row| {
            let line = &candidates[starts[row]..starts[row + 1]];
            let from = line.partition_point(|other| other.column + 1 < corner.column);
            line[from..].iter().take_while(|other| other.column <= corner.column + 1).any(|other| {
                let earlier = (other.row, other.column) < (corner.row, corner.column);
                other.strength > corner.strength || (other.strength == corner.strength && earlier)
            })
        })
    };
    candidates.iter().filter(|c| c.strength > 0.0 && !surpassed(c)).copied().collect()
}

/// The corner's column and row between pixels: the top of a parabola through Harris' measure at the
/// pixel and its neighbours.
#[inline(always)]
pub(super) fn locate(plane: &Plane, corner: &Corner) -> (f64, f64) {
    let Corner { column, row, strength } = *corner;
    let top = |before: f32, after: f32| {
        let curve = f64::from(before) - 2.0 * f64::from(strength) + f64::from(after);
        let shift = 0.5 * (f64::from(before) - f64::from(after)) / curve;
        if curve < 0.0 { shift.clamp(-0.5, 0.5) } else { 0.0 }
    };
    let across = top(harris(plane, column - 1, row), harris(plane, column + 1, row));
    let down = top(harris(plane, column, row - 1), harris(plane, column, row + 1));
    (column as f64 + across, row as f64 + down)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, height: usize, gray: impl Fn(usize, usize) -> u8) -> Plane {
        let pixels = (0..width * height).map(|i| gray(i % width, i / width)).collect();
        Plane { width, height, pixels }
    }

    #[test]
    fn nine_bits_in_a_row_are_an_arc_even_across_the_seam() {
        assert!(has_arc(0b1_1111_1111));
        assert!(has_arc(0b1111_0000_0001_1111));
        assert!(!has_arc(0b1111_1111));
        assert!(!has_arc(0b1111_0111_1111_0111));
    }

    #[test]
    fn the_corners_of_a_square_are_found_and_its_sides_are_not() {
        let inside = |v: usize| (30..60).contains(&v);
        let plane = plane(90, 90, |x, y| if inside(x) && inside(y) { 200 } else { 50 });
        let corners = find(&plane, 4);
        for (x, y) in [(30, 30), (59, 30), (30, 59), (59, 59)] {
            let near = |c: &Corner| c.column.abs_diff(x) <= 2 && c.row.abs_diff(y) <= 2;
            assert!(corners.iter().any(near), "no corner at {x}, {y}");
        }
        let on_corner = |v: usize| v.abs_diff(30) <= 3 || v.abs_diff(59) <= 3;
        assert!(corners.iter().all(|c| on_corner(c.column) && on_corner(c.row)));
    }

    #[test]
    fn an_even_plane_has_no_corner() {
        assert_eq!(find(&plane(60, 60, |_, _| 90), 10), []);
    }

    #[test]
    fn a_blob_between_pixels_is_located_there() {
        let (x0, y0) = (30.3, 29.6);
        let plane = plane(60, 60, |x, y| {
            let d2 = (x as f64 - x0).powi(2) + (y as f64 - y0).powi(2);
            (40.0 + 200.0 * (-d2 / 4.5).exp()).round() as u8
        });
        let corner = find(&plane, 1).into_iter().max_by(|a, b| a.strength.total_cmp(&b.strength));
        let (column, row) = locate(&plane, &corner.unwrap());
        assert!((column - x0).abs() < 0.1 && (row - y0).abs() < 0.1, "{column} {row}");
    }
}

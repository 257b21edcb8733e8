//! Corners: FAST's score, Harris' measure, and a place between pixels.

use super::pyramid::Plane;

/// Corners stay so far from the edges that what describes them lies inside.
pub(in crate::keyframes) const BORDER: usize = 18;

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

/// Weight of the squared trace in Harris' measure.
const HARRIS_K: f32 = 0.04;

/// A corner at a pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Corner {
    pub(super) column: usize,
    pub(super) row: usize,
    /// FAST's score.
    pub(super) score: u8,
}

/// The corners of `plane` with scores that none of their eight neighbours surpasses; at least `enough`
/// of them where the plane has so many faint ones.
#[inline(always)]
pub(super) fn find(plane: &Plane, enough: usize) -> Vec<Corner> {
    let scores = scores(plane);
    let peaks = peaks(plane, &scores, THRESHOLDS[1]);
    let is_clear = |corner: &&Corner| corner.score > THRESHOLDS[0];
    match peaks.iter().filter(is_clear).count() >= 2 * enough {
        true => peaks.iter().filter(is_clear).copied().collect(),
        false => peaks,
    }
}

/// Repeats a statement for each place, so that the lanes of all of them stay in registers.
macro_rules! at_each {
    ($i:ident of $($place:literal)*: $statement:expr) => {
        $({ const $i: usize = $place; $statement; })*
    };
}

/// Pixels that are scored at once.
const AT_ONCE: usize = 64;

/// Pixels in a row, or how far each reaches.
type Lanes = [u8; AT_ONCE];

/// FAST's score of each pixel away from the border, and 0 elsewhere.
#[inline(always)]
fn scores(plane: &Plane) -> Vec<u8> {
    let width = plane.width;
    let mut scores = vec![0u8; plane.pixels.len()];
    // What is left of a line is scored with pixels of the next one, which are there: see `BORDER`.
    for row in BORDER..plane.height - BORDER {
        for column in (BORDER..width - BORDER).step_by(AT_ONCE) {
            let start = row * width + column;
            let mut circle = [[0; AT_ONCE]; 16];
            at_each!(I of 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15: {
                let (x, y) = CIRCLE[I];
                circle[I] = lanes(&plane.pixels, (start as isize + y * width as isize + x) as usize);
            });
            let middle = lanes(&plane.pixels, start);
            if may_hold_corners(&middle, &circle) {
                scores[start..start + AT_ONCE].copy_from_slice(&score(&middle, &circle));
            }
        }
    }
    scores
}

/// The pixels from `start` on.
#[inline(always)]
fn lanes(pixels: &[u8], start: usize) -> Lanes {
    pixels[start..].first_chunk().copied().unwrap_or([0; AT_ONCE])
}

/// `of` of each two lanes. Whole rows at a time, since that becomes vector instructions.
#[inline(always)]
fn each(a: &Lanes, b: &Lanes, of: impl Fn(u8, u8) -> u8) -> Lanes {
    let mut lanes = [0; AT_ONCE];
    for i in 0..AT_ONCE {
        lanes[i] = of(a[i], b[i]);
    }
    lanes
}

/// Whether two of the four outermost places of a circle that are not opposite to each other are both
/// brighter or both darker by the lowest threshold, as every long arc holds such two.
#[inline(always)]
fn may_hold_corners(middle: &Lanes, circle: &[Lanes; 16]) -> bool {
    let [mut brighter, mut darker] = [[[0; AT_ONCE]; 4]; 2];
    at_each!(I of 0 1 2 3: {
        brighter[I] = each(&circle[4 * I], middle, u8::saturating_sub);
        darker[I] = each(middle, &circle[4 * I], u8::saturating_sub);
    });
    let two = |reach: &[Lanes; 4]| {
        let upright = each(&reach[0], &reach[2], u8::max);
        each(&upright, &each(&reach[1], &reach[3], u8::max), u8::min)
    };
    let most = each(&two(&brighter), &two(&darker), u8::max);
    most.iter().fold(0, |most, reach| most.max(*reach)) > THRESHOLDS[1]
}

/// The scores of pixels in a row, given the circles around them place by place: the greatest threshold
/// below which FAST's test holds, that nine neighbours on the circle are all brighter or all darker.
#[inline(always)]
fn score(middle: &Lanes, circle: &[Lanes; 16]) -> Lanes {
    let mut reach = [[0; AT_ONCE]; 16];
    at_each!(I of 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15:
        reach[I] = each(&circle[I], middle, u8::saturating_sub));
    let brighter = best_arc(&reach);
    at_each!(I of 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15:
        reach[I] = each(middle, &circle[I], u8::saturating_sub));
    each(&brighter, &best_arc(&reach), u8::max)
}

/// The most that all of some nine neighbours on the circle reach.
#[inline(always)]
fn best_arc(reach: &[Lanes; 16]) -> Lanes {
    // Two, four and eight in a row from each odd place on.
    let mut twos = [[0; AT_ONCE]; 8];
    at_each!(I of 0 1 2 3 4 5 6 7:
        twos[I] = each(&reach[2 * I + 1], &reach[(2 * I + 2) % 16], u8::min));
    let mut fours = [[0; AT_ONCE]; 8];
    at_each!(I of 0 1 2 3 4 5 6 7:
        fours[I] = each(&twos[I], &twos[(I + 1) % 8], u8::min));
    let mut best = [0; AT_ONCE];
    at_each!(I of 0 1 2 3 4 5 6 7: {
        let eight = each(&fours[I], &fours[(I + 2) % 8], u8::min);
        // Nine have one more at either end.
        let end = each(&reach[2 * I], &reach[(2 * I + 9) % 16], u8::max);
        best = each(&best, &each(&eight, &end, u8::min), u8::max);
    });
    best
}

/// The pixels that score above `threshold`, more than the neighbours before them and no less than
/// those after them, row by row.
#[inline(always)]
fn peaks(plane: &Plane, scores: &[u8], threshold: u8) -> Vec<Corner> {
    let width = plane.width;
    let mut found = Vec::new();
    for row in BORDER..plane.height - BORDER {
        for column in (BORDER..width - BORDER).step_by(AT_ONCE) {
            let start = row * width + column;
            let mut marks = peak_marks(scores, width, start, threshold);
            marks[AT_ONCE.min(width - BORDER - column)..].fill(0);
            let (eights, _) = marks.as_chunks::<8>();
            for (eight, first) in eights.iter().zip((0..).step_by(8)) {
                let mut set = u64::from_le_bytes(*eight);
                while set != 0 {
                    let place = first + set.trailing_zeros() as usize / 8;
                    set &= set - 1;
                    let score = scores[start + place];
                    found.push(Corner { column: column + place, row, score });
                }
            }
        }
    }
    found
}

/// 1 where one of the pixels from `start` on is a peak.
#[inline(always)]
fn peak_marks(scores: &[u8], width: usize, start: usize, threshold: u8) -> Lanes {
    let left = lanes(scores, start - 1);
    let right = lanes(scores, start + 1);
    let before = each(&most_of_three(scores, start - width), &left, u8::max);
    let after = each(&most_of_three(scores, start + width), &right, u8::max);
    let least = each(&before, &after, |before, after| {
        before.saturating_add(1).max(after).max(threshold + 1)
    });
    each(&lanes(scores, start), &least, |score, least| u8::from(score >= least))
}

/// The greatest of each pixel from `start` on and its neighbours to the left and right.
#[inline(always)]
fn most_of_three(scores: &[u8], start: usize) -> Lanes {
    let sides = each(&lanes(scores, start - 1), &lanes(scores, start + 1), u8::max);
    each(&lanes(scores, start), &sides, u8::max)
}

/// Pixels to each side over which gradients are summed up.
const RADIUS: usize = 3;

/// Pixels across and down that Harris' measure is taken at.
const SIDE: usize = 5;

/// Products of gradients by Sobel, in a row of [`LANES`] pixels: across, down, and both.
const LANES: usize = 16;

/// Harris' measure at the [`SIDE`] × [`SIDE`] pixels around `(column, row)`, over 7 × 7 pixels each, with
/// brightness between 0 and 1.
#[inline(always)]
fn harris(plane: &Plane, column: usize, row: usize) -> [[f32; SIDE]; SIDE] {
    let reach = RADIUS + SIDE / 2;
    let mut sums = [[[0i32; LANES]; 3]; SIDE];
    for y in 0..2 * reach + 1 {
        let products = products(plane, column - reach - 1, row - reach + y);
        for (offset, sums) in sums.iter_mut().enumerate() {
            if (offset..offset + 2 * RADIUS + 1).contains(&y) {
                for (sum, product) in sums.iter_mut().zip(&products) {
                    for lane in 0..LANES {
                        sum[lane] += product[lane];
                    }
                }
            }
        }
    }
    let unit = (4.0 * 7.0 * 255.0f32).powi(-2);
    let mut measures = [[0.0; SIDE]; SIDE];
    for (measures, sums) in measures.iter_mut().zip(&sums) {
        let (xx, yy, xy) = (boxed(&sums[0]), boxed(&sums[1]), boxed(&sums[2]));
        for (x, measure) in measures.iter_mut().enumerate() {
            let (xx, yy, xy) = (xx[x] as f32 * unit, yy[x] as f32 * unit, xy[x] as f32 * unit);
            *measure = xx * yy - xy * xy - HARRIS_K * (xx + yy) * (xx + yy);
        }
    }
    measures
}

/// The sums of each seven lanes in a row.
#[inline(always)]
fn boxed(lanes: &[i32; LANES]) -> [i32; LANES / 2] {
    let mut sums = [0; LANES / 2];
    for shift in 0..2 * RADIUS + 1 {
        for i in 0..LANES / 2 {
            sums[i] += lanes[i + shift];
        }
    }
    sums
}

/// The products at the pixels of `row` that follow the one at `column`.
#[inline(always)]
fn products(plane: &Plane, column: usize, row: usize) -> [[i32; LANES]; 3] {
    let start = row * plane.width + column;
    let above = gray_line(plane, start - plane.width);
    let here = gray_line(plane, start);
    let below = gray_line(plane, start + plane.width);
    let mut products = [[0; LANES]; 3];
    for i in 0..LANES {
        let across =
            above[i + 2] - above[i] + 2 * (here[i + 2] - here[i]) + below[i + 2] - below[i];
        let down =
            below[i] + 2 * below[i + 1] + below[i + 2] - above[i] - 2 * above[i + 1] - above[i + 2];
        let (x, y) = (i32::from(across), i32::from(down));
        products[0][i] = x * x;
        products[1][i] = y * y;
        products[2][i] = x * y;
    }
    products
}

/// The pixels from `start` on, widened.
#[inline(always)]
fn gray_line(plane: &Plane, start: usize) -> [i16; LANES + 2] {
    let mut line = [0; LANES + 2];
    for (wide, pixel) in line.iter_mut().zip(&plane.pixels[start..start + LANES + 2]) {
        *wide = i16::from(*pixel);
    }
    line
}

/// A corner moved to the neighbour of the greatest measure, and its column and row between pixels:
/// the top of a parabola through that pixel's and its neighbours' measures.
#[inline(always)]
pub(super) fn locate(plane: &Plane, corner: Corner) -> (Corner, (f64, f64)) {
    let measures = harris(plane, corner.column, corner.row);
    let (mut x, mut y) = (2, 2);
    for row in 1..4 {
        for column in 1..4 {
            if measures[row][column] > measures[y][x] {
                (x, y) = (column, row);
            }
        }
    }
    let strength = measures[y][x];
    let top = |before: f32, after: f32| {
        let curve = f64::from(before) - 2.0 * f64::from(strength) + f64::from(after);
        let shift = 0.5 * (f64::from(before) - f64::from(after)) / curve;
        if curve < 0.0 { shift.clamp(-0.5, 0.5) } else { 0.0 }
    };
    let across = top(measures[y][x - 1], measures[y][x + 1]);
    let down = top(measures[y - 1][x], measures[y + 1][x]);
    let (column, row) = (corner.column + x - 2, corner.row + y - 2);
    (Corner { column, row, ..corner }, (column as f64 + across, row as f64 + down))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, height: usize, gray: impl Fn(usize, usize) -> u8) -> Plane {
        let pixels = (0..width * height).map(|i| gray(i % width, i / width)).collect();
        Plane { width, height, pixels }
    }

    #[test]
    fn nine_in_a_row_are_an_arc_even_across_the_seam() {
        let best = |bits: u32| {
            let reach = |i: usize| if bits >> i & 1 == 1 { 9 + i as u8 } else { 3 };
            best_arc(&std::array::from_fn(|i| [reach(i); AT_ONCE]))[0]
        };
        assert_eq!(best(0b1_1111_1111), 9);
        assert_eq!(best(0b11_1111_1110), 10);
        assert_eq!(best(0b1111_0000_0001_1111), 9);
        assert_eq!(best(0b1111_1111), 3);
        assert_eq!(best(0b1111_0111_1111_0111), 3);
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
        let corner = find(&plane, 1).into_iter().max_by_key(|corner| corner.score);
        let (_, (column, row)) = locate(&plane, corner.unwrap());
        assert!((column - x0).abs() < 0.1 && (row - y0).abs() < 0.1, "{column} {row}");
    }
}

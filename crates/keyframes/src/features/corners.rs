//! Corner detection: FAST scores, Harris responses and subpixel localization.

use super::pyramid::{BORDER, Plane};

/// FAST thresholds: the default, and a lower one if that finds too few corners.
const THRESHOLDS: [u8; 2] = [20, 7];

/// FAST's circle of 16 pixels around the center, in order.
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

/// Weight of the squared trace in the Harris response.
const HARRIS_K: f32 = 0.04;

/// A corner at a pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Corner {
    pub(super) column: usize,
    pub(super) row: usize,
    /// FAST's score.
    pub(super) score: u8,
}

/// The corners of `plane` after 3 × 3 non-maximum suppression; uses the lower threshold if the default
/// finds fewer than twice `enough`.
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

/// Unrolls a statement over an index, so that all lanes stay in registers.
macro_rules! at_each {
    ($i:ident of $($offset:literal)*: $statement:expr) => {
        $({ const $i: usize = $offset; $statement; })*
    };
}

/// Pixels scored at once (SIMD).
const WIDTH: usize = 64;

/// Consecutive pixels, or their intensity differences.
type Lanes = [u8; WIDTH];

/// The FAST score of each pixel inside the border, and 0 elsewhere.
#[inline(always)]
fn scores(plane: &Plane) -> Vec<u8> {
    let width = plane.width;
    let mut scores = vec![0u8; plane.pixels.len()];
    // The last block of a row may extend into the next row, which `BORDER` guarantees to exist.
    for row in BORDER..plane.height - BORDER {
        for column in (BORDER..width - BORDER).step_by(WIDTH) {
            let start = row * width + column;
            let mut circle = [[0; WIDTH]; 16];
            at_each!(I of 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15: {
                let (x, y) = CIRCLE[I];
                circle[I] = lanes(&plane.pixels, (start as isize + y * width as isize + x) as usize);
            });
            let middle = lanes(&plane.pixels, start);
            if may_hold_corners(&middle, &circle) {
                scores[start..start + WIDTH].copy_from_slice(&score(&middle, &circle));
            }
        }
    }
    scores
}

/// The pixels from `start` on.
#[inline(always)]
fn lanes(pixels: &[u8], start: usize) -> Lanes {
    pixels[start..].first_chunk().copied().unwrap_or([0; WIDTH])
}

/// Applies `of` lane-wise; written as a loop that the compiler vectorizes.
#[inline(always)]
fn each(a: &Lanes, b: &Lanes, of: impl Fn(u8, u8) -> u8) -> Lanes {
    let mut lanes = [0; WIDTH];
    for i in 0..WIDTH {
        lanes[i] = of(a[i], b[i]);
    }
    lanes
}

/// FAST's early rejection: every long arc contains two adjacent ones of the four compass points, which must
/// both be brighter or both darker by the lowest threshold.
#[inline(always)]
fn may_hold_corners(middle: &Lanes, circle: &[Lanes; 16]) -> bool {
    let [mut brighter, mut darker] = [[[0; WIDTH]; 4]; 2];
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

/// The FAST scores of consecutive pixels, given their circles by index: the highest threshold below which
/// nine contiguous pixels of the circle are all brighter or all darker.
#[inline(always)]
fn score(middle: &Lanes, circle: &[Lanes; 16]) -> Lanes {
    let mut reach = [[0; WIDTH]; 16];
    at_each!(I of 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15:
        reach[I] = each(&circle[I], middle, u8::saturating_sub));
    let brighter = best_arc(&reach);
    at_each!(I of 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15:
        reach[I] = each(middle, &circle[I], u8::saturating_sub));
    each(&brighter, &best_arc(&reach), u8::max)
}

/// The maximum over arcs of nine pixels of the arc's minimum difference.
#[inline(always)]
fn best_arc(reach: &[Lanes; 16]) -> Lanes {
    // Minima of two, four and eight contiguous pixels from each odd index.
    let mut twos = [[0; WIDTH]; 8];
    at_each!(I of 0 1 2 3 4 5 6 7:
        twos[I] = each(&reach[2 * I + 1], &reach[(2 * I + 2) % 16], u8::min));
    let mut fours = [[0; WIDTH]; 8];
    at_each!(I of 0 1 2 3 4 5 6 7:
        fours[I] = each(&twos[I], &twos[(I + 1) % 8], u8::min));
    let mut best = [0; WIDTH];
    at_each!(I of 0 1 2 3 4 5 6 7: {
        let eight = each(&fours[I], &fours[(I + 2) % 8], u8::min);
        // Nine pixels are eight plus one at either end.
        let end = each(&reach[2 * I], &reach[(2 * I + 9) % 16], u8::max);
        best = each(&best, &each(&eight, &end, u8::min), u8::max);
    });
    best
}

/// Non-maximum suppression: the pixels that score above `threshold`, more than their neighbors before and
/// no less than those after, row by row.
#[inline(always)]
fn peaks(plane: &Plane, scores: &[u8], threshold: u8) -> Vec<Corner> {
    let width = plane.width;
    let mut found = Vec::new();
    for row in BORDER..plane.height - BORDER {
        for column in (BORDER..width - BORDER).step_by(WIDTH) {
            let start = row * width + column;
            let mut mask = peak_mask(scores, width, start, threshold);
            mask[WIDTH.min(width - BORDER - column)..].fill(0);
            let (eights, _) = mask.as_chunks::<8>();
            for (eight, first) in eights.iter().zip((0..).step_by(8)) {
                let mut set = u64::from_le_bytes(*eight);
                while set != 0 {
                    let offset = first + set.trailing_zeros() as usize / 8;
                    set &= set - 1;
                    let score = scores[start + offset];
                    found.push(Corner { column: column + offset, row, score });
                }
            }
        }
    }
    found
}

/// 1 for each pixel from `start` on that is a local maximum.
#[inline(always)]
fn peak_mask(scores: &[u8], width: usize, start: usize, threshold: u8) -> Lanes {
    let left = lanes(scores, start - 1);
    let right = lanes(scores, start + 1);
    let before = each(&max_of_three(scores, start - width), &left, u8::max);
    let after = each(&max_of_three(scores, start + width), &right, u8::max);
    let least = each(&before, &after, |before, after| {
        before.saturating_add(1).max(after).max(threshold + 1)
    });
    each(&lanes(scores, start), &least, |score, least| u8::from(score >= least))
}

/// The maximum of each pixel from `start` on and its left and right neighbors.
#[inline(always)]
fn max_of_three(scores: &[u8], start: usize) -> Lanes {
    let sides = each(&lanes(scores, start - 1), &lanes(scores, start + 1), u8::max);
    each(&lanes(scores, start), &sides, u8::max)
}

/// Radius of the window that gradients are summed over.
const RADIUS: usize = 3;

/// Side of the window of Harris responses, in pixels.
const SIDE: usize = 5;

/// Consecutive pixels whose Sobel gradient products are computed together.
const LANES: usize = 16;

/// The Harris responses at the [`SIDE`] × [`SIDE`] pixels around `(column, row)`, over 7 × 7 windows, with
/// intensities scaled to [0, 1].
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
    let mut responses = [[0.0; SIDE]; SIDE];
    for (responses, sums) in responses.iter_mut().zip(&sums) {
        let (xx, yy, xy) = (boxed(&sums[0]), boxed(&sums[1]), boxed(&sums[2]));
        for (x, response) in responses.iter_mut().enumerate() {
            let (xx, yy, xy) = (xx[x] as f32 * unit, yy[x] as f32 * unit, xy[x] as f32 * unit);
            *response = xx * yy - xy * xy - HARRIS_K * (xx + yy) * (xx + yy);
        }
    }
    responses
}

/// Box filter: sums of seven consecutive lanes.
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

/// The gradient products xx, yy and xy at the pixels of `row` after `column`.
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

/// The pixels from `start` on, widened to 16 bits.
#[inline(always)]
fn gray_line(plane: &Plane, start: usize) -> [i16; LANES + 2] {
    let mut line = [0; LANES + 2];
    for (wide, pixel) in line.iter_mut().zip(&plane.pixels[start..start + LANES + 2]) {
        *wide = i16::from(*pixel);
    }
    line
}

/// A corner moved to the neighbor with the highest Harris response, and its subpixel column and row by
/// parabolic interpolation of the responses.
#[inline(always)]
pub(super) fn locate(plane: &Plane, corner: Corner) -> (Corner, (f64, f64)) {
    let responses = harris(plane, corner.column, corner.row);
    let (mut x, mut y) = (2, 2);
    for row in 1..4 {
        for column in 1..4 {
            if responses[row][column] > responses[y][x] {
                (x, y) = (column, row);
            }
        }
    }
    let strength = responses[y][x];
    let top = |before: f32, after: f32| {
        let curve = f64::from(before) - 2.0 * f64::from(strength) + f64::from(after);
        let shift = 0.5 * (f64::from(before) - f64::from(after)) / curve;
        if curve < 0.0 { shift.clamp(-0.5, 0.5) } else { 0.0 }
    };
    let across = top(responses[y][x - 1], responses[y][x + 1]);
    let down = top(responses[y - 1][x], responses[y + 1][x]);
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
    fn arcs_of_nine_wrap_around_the_circle() {
        let best = |bits: u32| {
            let reach = |i: usize| if bits >> i & 1 == 1 { 9 + i as u8 } else { 3 };
            best_arc(&std::array::from_fn(|i| [reach(i); WIDTH]))[0]
        };
        assert_eq!(best(0b1_1111_1111), 9);
        assert_eq!(best(0b11_1111_1110), 10);
        assert_eq!(best(0b1111_0000_0001_1111), 9);
        assert_eq!(best(0b1111_1111), 3);
        assert_eq!(best(0b1111_0111_1111_0111), 3);
    }

    #[test]
    fn a_square_has_corners_only_at_its_vertices() {
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
    fn a_uniform_plane_has_no_corner() {
        assert_eq!(find(&plane(60, 60, |_, _| 90), 10), []);
    }

    #[test]
    fn a_blob_is_localized_between_pixels() {
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

//! The homography that the most correspondences agree with.

use super::super::random::Random;
use super::fit::fit;
use super::refine::refine;
use super::{Correspondence, Doubt, Homography, INLIER_PX, Point};

/// Samples of four at most.
const SAMPLES: usize = 4000;

/// Samples over which the pool grows from the best matches to all of them (after PROSAC, Chum and
/// Matas 2005).
const GROWTH: usize = 1000;

/// Correspondences that the first samples are drawn from.
const FIRST_POOL: usize = 20;

/// Sampling ends when a sample without outliers has been missed with at most this probability.
const MISSED: f64 = 1e-4;

/// Fewer correspondences than this agree with some map by chance.
const LEAST_INLIERS: usize = 10;

/// A frame's corner must be known better than to this share of the frame's diagonal.
const LARGEST_DEVIATION: f64 = 0.1;

/// Finds the map that the most of `pairs` agree with, by bringing them to within [`INLIER_PX`] of
/// their places.
///
/// `pairs` are given with the most reliable first; `frame` is the width and height of the picture
/// that is mapped. The result is the same at each call. `None` where fewer than ten agree.
#[must_use]
pub fn search(pairs: &[Correspondence], frame: (f64, f64)) -> Option<Homography> {
    if pairs.len() < LEAST_INLIERS {
        return None;
    }
    let best = sample(pairs, frame)?.homography;
    (inliers(pairs, &best).len() >= LEAST_INLIERS).then_some(best)
}

/// Fits the map `start` to those of `pairs` that agree with it.
///
/// # Errors
/// A [`Doubt`] where fewer than ten agree, where no camera could have made such a map, or where the
/// agreeing pairs leave it open where the corners of the `frame` come to lie.
pub fn settle(
    pairs: &[Correspondence],
    start: Homography,
    frame: (f64, f64),
) -> Result<Homography, Doubt> {
    let fitted =
        |start: &Homography| refine(&inliers(pairs, start), start).ok_or(Doubt::LooseCorners);
    let once = fitted(&start)?.homography;
    let twice = fitted(&once)?.homography;
    let refined = fitted(&twice)?;
    let homography = refined.homography;
    let deviation = refined.deviation_px(&corners(frame)).unwrap_or(f64::INFINITY);
    homography.project_frame(frame.0, frame.1).ok_or(Doubt::NoView)?;
    if inliers(pairs, &homography).len() < LEAST_INLIERS {
        return Err(Doubt::NoAgreement);
    }
    let is_certain = deviation <= LARGEST_DEVIATION * frame.0.hypot(frame.1);
    if is_certain { Ok(homography) } else { Err(Doubt::LooseCorners) }
}

/// Those of `pairs` that `homography` brings to within [`INLIER_PX`] of their places.
#[must_use]
pub fn inliers(pairs: &[Correspondence], homography: &Homography) -> Vec<Correspondence> {
    let agrees = |pair: &&Correspondence| homography.squared_error(pair) <= INLIER_PX * INLIER_PX;
    pairs.iter().filter(agrees).copied().collect()
}

fn corners((width, height): (f64, f64)) -> [Point; 4] {
    [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
}

/// A map and what its errors cost: the less the better.
struct Candidate {
    homography: Homography,
    cost: f64,
}

/// The best of many maps through four correspondences each.
fn sample(pairs: &[Correspondence], frame: (f64, f64)) -> Option<Candidate> {
    let mut random = Random::new(pairs.len() as u64);
    let mut best: Option<Candidate> = None;
    let mut needed = SAMPLES;
    let mut drawn = 0;
    while drawn < needed {
        let pool = FIRST_POOL + pairs.len().saturating_sub(FIRST_POOL) * drawn.min(GROWTH) / GROWTH;
        let sample = four(&mut random, &pairs[..pool.min(pairs.len())]);
        drawn += 1;
        if !keeps_turns(&sample) {
            continue;
        }
        let bound = best.as_ref().map_or(f64::INFINITY, |best| best.cost);
        let Some(candidate) = fit(&sample).and_then(|map| assess(map, pairs, frame, bound)) else {
            continue;
        };
        let candidate = polish(candidate, pairs, frame);
        needed =
            needed.min(samples_needed(inliers(pairs, &candidate.homography).len(), pairs.len()));
        best = Some(candidate);
    }
    best
}

/// Four different correspondences.
fn four(random: &mut Random, pool: &[Correspondence]) -> [Correspondence; 4] {
    let mut chosen = [0; 4];
    for i in 0..4 {
        let mut index = random.below(pool.len());
        while chosen[..i].contains(&index) {
            index = random.below(pool.len());
        }
        chosen[i] = index;
    }
    chosen.map(|index| pool[index])
}

/// Whether each three of four points turn the same way in both pictures, as they do in any view, and
/// no three lie on a line.
fn keeps_turns(sample: &[Correspondence; 4]) -> bool {
    const THREES: [[usize; 3]; 4] = [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]];
    let turn = |a: Point, b: Point, c: Point| (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0);
    THREES.iter().all(|three| {
        let [a, b, c] = three.map(|i| sample[i]);
        let (before, after) = (turn(a.from, b.from, c.from), turn(a.to, b.to, c.to));
        before * after > 0.0 && before.abs() > 20.0 && after.abs() > 20.0
    })
}

/// The candidate `homography`, if it is a view and costs less than `bound`.
///
/// The cost is the sum of the squared errors, each at most that of an outlier (MSAC, Torr and
/// Zisserman 2000).
fn assess(
    homography: Homography,
    pairs: &[Correspondence],
    frame: (f64, f64),
    bound: f64,
) -> Option<Candidate> {
    homography.project_frame(frame.0, frame.1)?;
    let mut cost = 0.0;
    for chunk in pairs.chunks(32) {
        cost += chunk
            .iter()
            .map(|pair| homography.squared_error(pair).min(INLIER_PX * INLIER_PX))
            .sum::<f64>();
        if cost >= bound {
            return None;
        }
    }
    Some(Candidate { homography, cost })
}

/// Fits the map to all that agree with it, while that makes it better (LO-RANSAC, Chum et al. 2003).
fn polish(mut best: Candidate, pairs: &[Correspondence], frame: (f64, f64)) -> Candidate {
    for _ in 0..4 {
        let better = fit(&inliers(pairs, &best.homography))
            .and_then(|map| assess(map, pairs, frame, best.cost));
        match better {
            Some(better) => best = better,
            None => break,
        }
    }
    best
}

/// Samples after which one without outliers was missed with a probability of [`MISSED`].
fn samples_needed(inliers: usize, pairs: usize) -> usize {
    let clean = (inliers as f64 / pairs as f64).powi(4);
    let needed = MISSED.ln() / (1.0 - clean).ln();
    if needed.is_finite() { (needed.ceil() as usize).clamp(20, SAMPLES) } else { 20 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TILTED;
    use super::*;

    const FRAME: (f64, f64) = (640.0, 480.0);

    fn place(random: &mut Random) -> Point {
        (random.unit() * FRAME.0, random.unit() * FRAME.1)
    }

    /// `good` pairs that follow `map`, among `bad` ones that follow nothing.
    fn mixed(map: &Homography, good: usize, bad: usize) -> Vec<Correspondence> {
        let mut random = Random::new(5);
        let mut pairs: Vec<_> = (0..good + bad)
            .map(|i| {
                let from = place(&mut random);
                let to = if i < good { map.apply(from).unwrap() } else { place(&mut random) };
                Correspondence { from, to, deviation: 1.0 }
            })
            .collect();
        for i in (1..pairs.len()).rev() {
            pairs.swap(i, random.below(i + 1));
        }
        pairs
    }

    fn estimate(pairs: &[Correspondence], frame: (f64, f64)) -> Option<Homography> {
        settle(pairs, search(pairs, frame)?, frame).ok()
    }

    #[test]
    fn a_map_is_found_among_four_times_as_many_outliers() {
        let pairs = mixed(&TILTED, 50, 200);
        let found = estimate(&pairs, FRAME).unwrap();
        let agree = inliers(&pairs, &found).len();
        assert!((50..=55).contains(&agree), "{agree}");
        for (a, b) in found.0.iter().zip(TILTED.0) {
            assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{found:?}");
        }
    }

    #[test]
    fn the_result_is_the_same_each_time() {
        let pairs = mixed(&TILTED, 30, 100);
        assert_eq!(estimate(&pairs, FRAME), estimate(&pairs, FRAME));
    }

    #[test]
    fn chance_is_no_map() {
        assert_eq!(estimate(&mixed(&TILTED, 0, 300), FRAME), None);
    }

    #[test]
    fn a_mirror_image_is_no_map() {
        let mirror = Homography([-1.0, 0.0, 640.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(estimate(&mixed(&mirror, 100, 0), FRAME), None);
    }

    #[test]
    fn points_on_a_line_are_no_map() {
        let mut pairs = mixed(&TILTED, 60, 0);
        for pair in &mut pairs {
            pair.from.1 = pair.from.0 * 0.5;
            pair.to = TILTED.apply(pair.from).unwrap();
        }
        assert_eq!(estimate(&pairs, FRAME), None);
    }

    #[test]
    fn too_few_points_are_no_map() {
        assert_eq!(estimate(&mixed(&TILTED, 9, 0), FRAME), None);
    }
}

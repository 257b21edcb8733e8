//! Robust homography estimation by RANSAC.

use embodied_r_random::Rng;

use super::fit::fit;
use super::refine::refine;
use super::{Correspondence, Homography, HomographyFailure, INLIER_PX, Point};

/// Maximum samples of four correspondences.
const MAX_SAMPLES: usize = 4000;

/// Samples over which the pool grows from the best matches to all of them (after PROSAC, Chum and
/// Matas 2005).
const GROWTH: usize = 1000;

/// Correspondences that the first samples are drawn from.
const FIRST_POOL: usize = 20;

/// Sampling stops once the probability of having missed an outlier-free sample is this low.
const MISS_PROBABILITY: f64 = 1e-4;

/// Minimum inliers: fewer correspondences agree with some map by chance.
const MIN_INLIERS: usize = 10;

/// Maximum standard deviation of a projected corner, relative to the frame's diagonal.
const MAX_CORNER_SIGMA: f64 = 0.1;

/// Finds the homography with the lowest truncated error over `pairs`; inliers are within
/// [`INLIER_PX`].
///
/// `pairs` are sorted by descending reliability; `frame` is the width and height of the mapped image.
/// The result is deterministic. `None` with fewer than ten inliers.
#[must_use]
pub fn find_homography(pairs: &[Correspondence], frame: (f64, f64)) -> Option<Homography> {
    if pairs.len() < MIN_INLIERS {
        return None;
    }
    let best = sample(pairs, frame)?.homography;
    (inliers(pairs, &best).len() >= MIN_INLIERS).then_some(best)
}

/// Refits the homography `start` to its inliers among `pairs`.
///
/// # Errors
/// A [`HomographyFailure`] if there are fewer than ten inliers, if the result is not a plausible view, or if
/// the inliers do not determine the projected corners of the `frame`.
pub fn refit(
    pairs: &[Correspondence],
    start: Homography,
    frame: (f64, f64),
) -> Result<Homography, HomographyFailure> {
    let fitted = |start: &Homography| {
        refine(&inliers(pairs, start), start).ok_or(HomographyFailure::UncertainCorners)
    };
    let once = fitted(&start)?.homography;
    let twice = fitted(&once)?.homography;
    let refined = fitted(&twice)?;
    let homography = refined.homography;
    let sigma = refined.sigma_px(&corners(frame)).unwrap_or(f64::INFINITY);
    homography.project_frame(frame.0, frame.1).ok_or(HomographyFailure::Implausible)?;
    if inliers(pairs, &homography).len() < MIN_INLIERS {
        return Err(HomographyFailure::NoConsensus);
    }
    let is_certain = sigma <= MAX_CORNER_SIGMA * frame.0.hypot(frame.1);
    if is_certain { Ok(homography) } else { Err(HomographyFailure::UncertainCorners) }
}

/// Those of `pairs` whose reprojection error is at most [`INLIER_PX`].
#[must_use]
pub fn inliers(pairs: &[Correspondence], homography: &Homography) -> Vec<Correspondence> {
    let agrees = |pair: &&Correspondence| homography.squared_error(pair) <= INLIER_PX * INLIER_PX;
    pairs.iter().filter(agrees).copied().collect()
}

fn corners((width, height): (f64, f64)) -> [Point; 4] {
    [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
}

/// A homography and its cost; lower is better.
struct Candidate {
    homography: Homography,
    cost: f64,
}

/// The best of many homographies through four correspondences each.
fn sample(pairs: &[Correspondence], frame: (f64, f64)) -> Option<Candidate> {
    let mut random = Rng::seeded(pairs.len() as u64);
    let mut best: Option<Candidate> = None;
    let mut needed = MAX_SAMPLES;
    let mut drawn = 0;
    while drawn < needed {
        let pool = FIRST_POOL + pairs.len().saturating_sub(FIRST_POOL) * drawn.min(GROWTH) / GROWTH;
        let sample = draw_four(&mut random, &pairs[..pool.min(pairs.len())]);
        drawn += 1;
        if !preserves_orientation(&sample) {
            continue;
        }
        let bound = best.as_ref().map_or(f64::INFINITY, |best| best.cost);
        let Some(candidate) = fit(&sample).and_then(|map| score(map, pairs, frame, bound)) else {
            continue;
        };
        let candidate = locally_optimize(candidate, pairs, frame);
        needed =
            needed.min(samples_needed(inliers(pairs, &candidate.homography).len(), pairs.len()));
        best = Some(candidate);
    }
    best
}

/// Four different correspondences.
fn draw_four(random: &mut Rng, pool: &[Correspondence]) -> [Correspondence; 4] {
    let mut chosen = [0; 4];
    for i in 0..4 {
        let mut index = below(random, pool.len());
        while chosen[..i].contains(&index) {
            index = below(random, pool.len());
        }
        chosen[i] = index;
    }
    chosen.map(|index| pool[index])
}

/// Whether every triple of four points has the same orientation in both images, as in any view, and no
/// triple is collinear.
fn preserves_orientation(sample: &[Correspondence; 4]) -> bool {
    const TRIPLES: [[usize; 3]; 4] = [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]];
    let cross =
        |a: Point, b: Point, c: Point| (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0);
    TRIPLES.iter().all(|three| {
        let [a, b, c] = three.map(|i| sample[i]);
        let (before, after) = (cross(a.from, b.from, c.from), cross(a.to, b.to, c.to));
        before * after > 0.0 && before.abs() > 20.0 && after.abs() > 20.0
    })
}

/// Scores `homography`; `None` if it is implausible or its cost reaches `bound`.
///
/// The cost is the sum of the squared errors, each at most that of an outlier (MSAC, Torr and
/// Zisserman 2000).
fn score(
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

/// Refits to the inliers as long as the cost decreases (LO-RANSAC, Chum et al. 2003).
fn locally_optimize(mut best: Candidate, pairs: &[Correspondence], frame: (f64, f64)) -> Candidate {
    for _ in 0..4 {
        let better = fit(&inliers(pairs, &best.homography))
            .and_then(|map| score(map, pairs, frame, best.cost));
        match better {
            Some(better) => best = better,
            None => break,
        }
    }
    best
}

/// Samples after which the probability of having missed an outlier-free one is [`MISS_PROBABILITY`].
fn samples_needed(inliers: usize, pairs: usize) -> usize {
    let clean = (inliers as f64 / pairs as f64).powi(4);
    let needed = MISS_PROBABILITY.ln() / (1.0 - clean).ln();
    if needed.is_finite() { (needed.ceil() as usize).clamp(20, MAX_SAMPLES) } else { 20 }
}

/// A uniform integer in [0, `count`); `count` is above 0.
fn below(random: &mut Rng, count: usize) -> usize {
    ((random.unit() * count as f64) as usize).min(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::super::TILTED;
    use super::*;

    const FRAME: (f64, f64) = (640.0, 480.0);

    fn point(random: &mut Rng) -> Point {
        (random.unit() * FRAME.0, random.unit() * FRAME.1)
    }

    /// `good` inliers of `map`, shuffled among `bad` random outliers.
    fn mixed(map: &Homography, good: usize, bad: usize) -> Vec<Correspondence> {
        let mut random = Rng::seeded(5);
        let mut pairs: Vec<_> = (0..good + bad)
            .map(|i| {
                let from = point(&mut random);
                let to = if i < good { map.apply(from).unwrap() } else { point(&mut random) };
                Correspondence { from, to, sigma: 1.0 }
            })
            .collect();
        for i in (1..pairs.len()).rev() {
            pairs.swap(i, below(&mut random, i + 1));
        }
        pairs
    }

    fn estimate(pairs: &[Correspondence], frame: (f64, f64)) -> Option<Homography> {
        refit(pairs, find_homography(pairs, frame)?, frame).ok()
    }

    #[test]
    fn the_numbers_stay_bit_for_bit() {
        let mut random = Rng::seeded(5);
        assert_eq!(random.unit(), 0.386768045983934);
        assert_eq!([(); 4].map(|()| below(&mut random, 100)), [75, 23, 9, 18]);
        assert_eq!(random.unit(), 0.38060892761862153);
    }

    #[test]
    fn a_homography_is_found_among_four_times_as_many_outliers() {
        let pairs = mixed(&TILTED, 50, 200);
        let found = estimate(&pairs, FRAME).unwrap();
        let agree = inliers(&pairs, &found).len();
        assert!((50..=55).contains(&agree), "{agree}");
        for (a, b) in found.0.iter().zip(TILTED.0) {
            assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{found:?}");
        }
    }

    #[test]
    fn the_result_is_deterministic() {
        let pairs = mixed(&TILTED, 30, 100);
        assert_eq!(estimate(&pairs, FRAME), estimate(&pairs, FRAME));
    }

    #[test]
    fn random_pairs_have_no_homography() {
        assert_eq!(estimate(&mixed(&TILTED, 0, 300), FRAME), None);
    }

    #[test]
    fn a_mirrored_image_has_no_homography() {
        let mirror = Homography([-1.0, 0.0, 640.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(estimate(&mixed(&mirror, 100, 0), FRAME), None);
    }

    #[test]
    fn collinear_points_have_no_homography() {
        let mut pairs = mixed(&TILTED, 60, 0);
        for pair in &mut pairs {
            pair.from.1 = pair.from.0 * 0.5;
            pair.to = TILTED.apply(pair.from).unwrap();
        }
        assert_eq!(estimate(&pairs, FRAME), None);
    }

    #[test]
    fn too_few_points_have_no_homography() {
        assert_eq!(estimate(&mixed(&TILTED, 9, 0), FRAME), None);
    }
}

//! Robust refinement of a homography by its reprojection error.

use multiversion::multiversion;

use super::fit::{NormalEquations, Normalizer, to_normalized, to_pixels};
use super::{Correspondence, Homography, Point};

/// Maximum Gauss-Newton steps; it converges in about five.
const MAX_STEPS: usize = 12;

/// A refined homography with its uncertainty.
pub(super) struct Refined {
    pub(super) homography: Homography,
    equations: NormalEquations,
    map: [f64; 8],
    from: Normalizer,
    to: Normalizer,
    /// Robust scale of the error of a correspondence with unit sigma, in normalized units.
    scale: f64,
}

impl Refined {
    /// The largest standard deviation of the projections of `points`, in pixels.
    pub(super) fn sigma_px(&self, points: &[Point]) -> Option<f64> {
        let covariance = self.equations.covariance()?;
        points.iter().try_fold(0.0f64, |most, point| {
            let (_, across, down) = project(&self.map, self.from.apply(*point))?;
            let variance = covariance.variance(&across) + covariance.variance(&down);
            Some(most.max(self.scale * variance.sqrt() / self.to.scale()))
        })
    }
}

/// Minimizes the reprojection errors of `pairs` by Gauss-Newton steps from `start`. Pairs are weighted by
/// their sigma and by Geman-McClure weights, which reduce the influence of outliers. `None` if the pairs
/// do not determine a homography.
#[multiversion(targets = "simd")]
pub(super) fn refine(pairs: &[Correspondence], start: &Homography) -> Option<Refined> {
    let from = Normalizer::of(pairs.iter().map(|pair| pair.from))?;
    let to = Normalizer::of(pairs.iter().map(|pair| pair.to))?;
    let mut map = to_normalized(start, &from, &to)?;
    let min_scale = 0.02 * to.scale();
    let mut last = None;
    let mut errors = Vec::with_capacity(pairs.len());
    for _ in 0..MAX_STEPS {
        let scale = typical_error(pairs, &map, (&from, &to), &mut errors)?.max(min_scale);
        let mut equations = NormalEquations::new();
        for pair in pairs {
            let Some((point, across, down)) = project(&map, from.apply(pair.from)) else {
                continue;
            };
            let target = to.apply(pair.to);
            let error = (target.0 - point.0, target.1 - point.1);
            let sigma = scale * pair.sigma;
            let off = (error.0.powi(2) + error.1.powi(2)) / (TUNING * sigma).powi(2);
            let weight = (1.0 + off).powi(-2) / pair.sigma.powi(2);
            equations.add(&across, error.0, weight);
            equations.add(&down, error.1, weight);
        }
        let step = equations.solve()?;
        for (entry, change) in map.iter_mut().zip(step) {
            *entry += change;
        }
        let moved = step.iter().fold(0.0f64, |most, change| most.max(change.abs()));
        last = Some((equations, scale));
        if moved < 1e-9 {
            break;
        }
    }
    let (equations, scale) = last?;
    let homography = to_pixels(&map, &from, &to)?;
    Some(Refined { homography, equations, map, from, to, scale })
}

/// Errors of this many robust scales have a weight of a quarter.
const TUNING: f64 = 3.0;

/// The median error in units of sigma, scaled to the standard deviation of a normal distribution along
/// one axis. `buffer` is scratch space.
#[inline(always)]
fn typical_error(
    pairs: &[Correspondence],
    map: &[f64; 8],
    (from, to): (&Normalizer, &Normalizer),
    buffer: &mut Vec<f64>,
) -> Option<f64> {
    let error = |pair: &Correspondence| {
        let (point, ..) = project(map, from.apply(pair.from))?;
        let target = to.apply(pair.to);
        Some((target.0 - point.0, target.1 - point.1))
    };
    // Squared errors have the same order and need no square roots.
    let square = |pair: &Correspondence| {
        let (across, down) = error(pair)?;
        Some((across * across + down * down) / (pair.sigma * pair.sigma))
    };
    buffer.clear();
    buffer.extend(pairs.iter().filter_map(square));
    let middle = buffer.len() / 2;
    if buffer.is_empty() {
        return None;
    }
    let (_, median, _) = buffer.select_nth_unstable_by(middle, f64::total_cmp);
    let pair = pairs.iter().find(|pair| square(pair) == Some(*median))?;
    let (across, down) = error(pair)?;
    // The median of a Rayleigh distribution is 1.177 standard deviations.
    Some(across.hypot(down) / pair.sigma / 1.177)
}

/// Projects a normalized point, with the Jacobian of its two coordinates.
#[inline(always)]
fn project(map: &[f64; 8], (x, y): Point) -> Option<(Point, [f64; 8], [f64; 8])> {
    let depth = map[6] * x + map[7] * y + 1.0;
    if depth <= 1e-9 {
        return None;
    }
    let u = (map[0] * x + map[1] * y + map[2]) / depth;
    let v = (map[3] * x + map[4] * y + map[5]) / depth;
    let (x, y, one) = (x / depth, y / depth, 1.0 / depth);
    let across = [x, y, one, 0.0, 0.0, 0.0, -u * x, -u * y];
    let down = [0.0, 0.0, 0.0, x, y, one, -v * x, -v * y];
    Some(((u, v), across, down))
}

#[cfg(test)]
mod tests {
    use super::super::TILTED;
    use super::*;
    use embodied_r_random::Rng;

    fn noisy(count: usize, noise: f64) -> Vec<Correspondence> {
        let mut random = Rng::seeded(7);
        let mut jittered = move |at: f64| at + noise * 3.46 * (random.unit() - 0.5);
        let mut positions = Rng::seeded(1);
        let mut pair = || {
            let from = (positions.unit() * 640.0, positions.unit() * 480.0);
            let to = TILTED.apply(from).unwrap();
            Correspondence { from, to: (jittered(to.0), jittered(to.1)), sigma: 1.0 }
        };
        (0..count).map(|_| pair()).collect()
    }

    fn corner_error(found: &Homography) -> f64 {
        let corners = |map: &Homography| map.project_frame(640.0, 480.0).unwrap();
        let far = |(a, b): (&Point, &Point)| (a.0 - b.0).hypot(a.1 - b.1);
        corners(found).iter().zip(&corners(&TILTED)).map(far).fold(0.0, f64::max)
    }

    #[test]
    fn outliers_barely_affect_the_map() {
        let mut pairs = noisy(200, 0.3);
        for pair in &mut pairs[..30] {
            pair.to.0 += 4.0;
        }
        let refined = refine(&pairs, &Homography::IDENTITY).unwrap();
        assert!(corner_error(&refined.homography) < 0.3);
    }

    #[test]
    fn the_reported_sigma_is_the_expected_error() {
        let refined = refine(&noisy(300, 0.5), &TILTED).unwrap();
        let corners = [(0.0, 0.0), (640.0, 0.0), (640.0, 480.0), (0.0, 480.0)];
        let stated: f64 = corners.iter().map(|c| refined.sigma_px(&[*c]).unwrap()).sum();
        assert!((0.15..1.5).contains(&stated), "{stated}");
        assert!(corner_error(&refined.homography) < stated);
    }

    #[test]
    fn clustered_points_leave_the_corners_uncertain() {
        let mut pairs = noisy(60, 0.0);
        let mut random = Rng::seeded(3);
        for pair in &mut pairs {
            pair.from = (300.0 + 20.0 * random.unit(), 200.0 + 20.0 * random.unit());
            let to = TILTED.apply(pair.from).unwrap();
            pair.to = (to.0 + random.unit(), to.1 + random.unit());
        }
        let uncertain = refine(&pairs, &TILTED).and_then(|r| r.sigma_px(&[(0.0, 0.0)]));
        assert!(uncertain.is_none_or(|px| px > 50.0), "{uncertain:?}");
    }
}

//! The last pixels: a homography fitted to where points come to lie, robustly.

use multiversion::multiversion;

use super::fit::{Equations, Normaliser, to_normalised, to_pixels};
use super::{Correspondence, Homography, Point};

/// Steps of the fit; it settles in five or so.
const STEPS: usize = 12;

/// A homography and how well it is determined.
pub(super) struct Refined {
    pub(super) homography: Homography,
    equations: Equations,
    map: [f64; 8],
    from: Normaliser,
    to: Normaliser,
    /// Typical error of a correspondence of deviation 1, in normalised units.
    spread: f64,
}

impl Refined {
    /// How uncertain the most uncertain place is that one of `points` comes to lie at, in pixels.
    pub(super) fn deviation_px(&self, points: &[Point]) -> Option<f64> {
        let uncertainty = self.equations.uncertainty()?;
        points.iter().try_fold(0.0f64, |most, point| {
            let (_, across, down) = project(&self.map, self.from.apply(*point))?;
            let variance = uncertainty.variance(&across) + uncertainty.variance(&down);
            Some(most.max(self.spread * variance.sqrt() / self.to.zoom()))
        })
    }
}

/// Minimises the distances between where `pairs` come to lie and where they should, by Gauss-Newton
/// steps from `start`. Each pair counts by its deviation and, by the weights of Geman and McClure,
/// the less the farther it lies off what is typical. `None` where the pairs do not determine a map.
#[multiversion(targets = "simd")]
pub(super) fn refine(pairs: &[Correspondence], start: &Homography) -> Option<Refined> {
    let from = Normaliser::of(pairs.iter().map(|pair| pair.from))?;
    let to = Normaliser::of(pairs.iter().map(|pair| pair.to))?;
    let mut map = to_normalised(start, &from, &to)?;
    let least_spread = 0.02 * to.zoom();
    let mut last = None;
    let mut errors = Vec::with_capacity(pairs.len());
    for _ in 0..STEPS {
        let spread = typical_error(pairs, &map, (&from, &to), &mut errors)?.max(least_spread);
        let mut equations = Equations::new();
        for pair in pairs {
            let Some((place, across, down)) = project(&map, from.apply(pair.from)) else {
                continue;
            };
            let wanted = to.apply(pair.to);
            let error = (wanted.0 - place.0, wanted.1 - place.1);
            let sigma = spread * pair.deviation;
            let off = (error.0.powi(2) + error.1.powi(2)) / (TUNING * sigma).powi(2);
            let weight = (1.0 + off).powi(-2) / pair.deviation.powi(2);
            equations.add(&across, error.0, weight);
            equations.add(&down, error.1, weight);
        }
        let step = equations.solve()?;
        for (entry, change) in map.iter_mut().zip(step) {
            *entry += change;
        }
        let moved = step.iter().fold(0.0f64, |most, change| most.max(change.abs()));
        last = Some((equations, spread));
        if moved < 1e-9 {
            break;
        }
    }
    let (equations, spread) = last?;
    let homography = to_pixels(&map, &from, &to)?;
    Some(Refined { homography, equations, map, from, to, spread })
}

/// Errors of so many typical ones still count for a quarter.
const TUNING: f64 = 3.0;

/// The median error in units of the deviations, made comparable to a normal distribution's deviation
/// along one axis. `room` is for the errors.
#[inline(always)]
fn typical_error(
    pairs: &[Correspondence],
    map: &[f64; 8],
    (from, to): (&Normaliser, &Normaliser),
    room: &mut Vec<f64>,
) -> Option<f64> {
    let error = |pair: &Correspondence| {
        let (place, ..) = project(map, from.apply(pair.from))?;
        let wanted = to.apply(pair.to);
        Some((wanted.0 - place.0, wanted.1 - place.1))
    };
    // Squares are in the same order, and found without roots.
    let square = |pair: &Correspondence| {
        let (across, down) = error(pair)?;
        Some((across * across + down * down) / (pair.deviation * pair.deviation))
    };
    room.clear();
    room.extend(pairs.iter().filter_map(square));
    let middle = room.len() / 2;
    if room.is_empty() {
        return None;
    }
    let (_, median, _) = room.select_nth_unstable_by(middle, f64::total_cmp);
    let pair = pairs.iter().find(|pair| square(pair) == Some(*median))?;
    let (across, down) = error(pair)?;
    // The median of a Rayleigh distribution is 1.177 deviations.
    Some(across.hypot(down) / pair.deviation / 1.177)
}

/// Where a normalised point comes to lie, and how its two coordinates change with the map's entries.
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
    use super::super::super::random::Random;
    use super::super::tests::TILTED;
    use super::*;

    fn noisy(count: usize, noise: f64) -> Vec<Correspondence> {
        let mut random = Random::new(7);
        let mut shaken = move |at: f64| at + noise * 3.46 * (random.unit() - 0.5);
        let mut places = Random::new(1);
        let mut pair = || {
            let from = (places.unit() * 640.0, places.unit() * 480.0);
            let to = TILTED.apply(from).unwrap();
            Correspondence { from, to: (shaken(to.0), shaken(to.1)), deviation: 1.0 }
        };
        (0..count).map(|_| pair()).collect()
    }

    fn corner_error(found: &Homography) -> f64 {
        let corners = |map: &Homography| map.project_frame(640.0, 480.0).unwrap();
        let far = |(a, b): (&Point, &Point)| (a.0 - b.0).hypot(a.1 - b.1);
        corners(found).iter().zip(&corners(&TILTED)).map(far).fold(0.0, f64::max)
    }

    #[test]
    fn outliers_hardly_move_the_map() {
        let mut pairs = noisy(200, 0.3);
        for pair in &mut pairs[..30] {
            pair.to.0 += 4.0;
        }
        let refined = refine(&pairs, &Homography::IDENTITY).unwrap();
        assert!(corner_error(&refined.homography) < 0.3);
    }

    #[test]
    fn the_stated_deviation_is_the_error_to_expect() {
        let refined = refine(&noisy(300, 0.5), &TILTED).unwrap();
        let corners = [(0.0, 0.0), (640.0, 0.0), (640.0, 480.0), (0.0, 480.0)];
        let stated: f64 = corners.iter().map(|c| refined.deviation_px(&[*c]).unwrap()).sum();
        assert!((0.15..1.5).contains(&stated), "{stated}");
        assert!(corner_error(&refined.homography) < stated);
    }

    #[test]
    fn points_close_together_leave_the_corners_uncertain() {
        let mut pairs = noisy(60, 0.0);
        let mut random = Random::new(3);
        for pair in &mut pairs {
            pair.from = (300.0 + 20.0 * random.unit(), 200.0 + 20.0 * random.unit());
            let to = TILTED.apply(pair.from).unwrap();
            pair.to = (to.0 + random.unit(), to.1 + random.unit());
        }
        let uncertain = refine(&pairs, &TILTED).and_then(|r| r.deviation_px(&[(0.0, 0.0)]));
        assert!(uncertain.is_none_or(|px| px > 50.0), "{uncertain:?}");
    }
}

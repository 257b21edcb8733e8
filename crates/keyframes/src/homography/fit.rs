//! A homography from correspondences, by linear least squares.

use super::{Correspondence, Homography, Point};

/// 8 × 8 normal equations for the first eight entries of a homography whose ninth is 1.
pub(super) struct NormalEquations {
    left: [[f64; 8]; 8],
    right: [f64; 8],
}

impl NormalEquations {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { left: [[0.0; 8]; 8], right: [0.0; 8] }
    }

    /// Adds the squared error of `row · x = value` with `weight`.
    #[inline(always)]
    pub(super) fn add(&mut self, row: &[f64; 8], value: f64, weight: f64) {
        for (i, &a) in row.iter().enumerate() {
            let weighted = a * weight;
            for (entry, &b) in self.left[i].iter_mut().zip(row) {
                *entry += weighted * b;
            }
            self.right[i] += weighted * value;
        }
    }

    /// The least-squares solution; `None` if the equations are singular.
    pub(super) fn solve(&self) -> Option<[f64; 8]> {
        let factor = self.factor()?;
        Some(back_substitute(&factor, &self.right))
    }

    /// The covariance of the solution; `None` if the equations are singular.
    pub(super) fn covariance(&self) -> Option<Covariance> {
        self.factor().map(Covariance)
    }

    /// The lower Cholesky factor.
    fn factor(&self) -> Option<[[f64; 8]; 8]> {
        let mut lower = [[0.0; 8]; 8];
        for i in 0..8 {
            for j in 0..=i {
                let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
                let rest = self.left[i][j] - known;
                if i != j {
                    lower[i][j] = rest / lower[j][j];
                } else if rest > 1e-12 * self.left[i][i] {
                    lower[i][i] = rest.sqrt();
                } else {
                    return None;
                }
            }
        }
        Some(lower)
    }
}

/// The covariance of the solution, as the Cholesky factor of its inverse.
pub(super) struct Covariance([[f64; 8]; 8]);

impl Covariance {
    /// The variance `row · C · row` of `row · x`, where `C` is the inverse of the normal matrix, for errors
    /// of unit variance.
    pub(super) fn variance(&self, row: &[f64; 8]) -> f64 {
        let solved = back_substitute(&self.0, row);
        row.iter().zip(solved).map(|(a, b)| a * b).sum()
    }
}

fn back_substitute(lower: &[[f64; 8]; 8], right: &[f64; 8]) -> [f64; 8] {
    let mut solved = *right;
    for i in 0..8 {
        let known: f64 = (0..i).map(|k| lower[i][k] * solved[k]).sum();
        solved[i] = (solved[i] - known) / lower[i][i];
    }
    for i in (0..8).rev() {
        let known: f64 = (i + 1..8).map(|k| lower[k][i] * solved[k]).sum();
        solved[i] = (solved[i] - known) / lower[i][i];
    }
    solved
}

/// A translation and a scale that center points at 0 with a mean distance of √2, which keeps the
/// equations well conditioned (Hartley 1997).
#[derive(Debug, Clone, Copy)]
pub(super) struct Normalizer {
    center: Point,
    scale: f64,
}

impl Normalizer {
    /// The normalizer of `points`; `None` if they all coincide.
    pub(super) fn of(points: impl Iterator<Item = Point> + Clone) -> Option<Self> {
        let (mut x, mut y, mut count) = (0.0, 0.0, 0.0);
        for point in points.clone() {
            (x, y, count) = (x + point.0, y + point.1, count + 1.0);
        }
        let center = (x / count, y / count);
        let far: f64 = points.map(|p| (p.0 - center.0).hypot(p.1 - center.1)).sum();
        let scale = std::f64::consts::SQRT_2 * count / far;
        scale.is_finite().then_some(Self { center, scale })
    }

    #[inline(always)]
    pub(super) fn apply(&self, (x, y): Point) -> Point {
        ((x - self.center.0) * self.scale, (y - self.center.1) * self.scale)
    }

    /// Normalized units per pixel.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    fn matrix(&self) -> Homography {
        let Self { center: (x, y), scale } = *self;
        Homography([scale, 0.0, -scale * x, 0.0, scale, -scale * y, 0.0, 0.0, 1.0])
    }

    fn inverse(&self) -> Homography {
        let Self { center: (x, y), scale } = *self;
        Homography([1.0 / scale, 0.0, x, 0.0, 1.0 / scale, y, 0.0, 0.0, 1.0])
    }
}

/// Converts a map between normalized points to one between pixels.
pub(super) fn to_pixels(map: &[f64; 8], from: &Normalizer, to: &Normalizer) -> Option<Homography> {
    let mut entries = [1.0; 9];
    entries[..8].copy_from_slice(map);
    to.inverse().compose(&Homography(entries)).compose(&from.matrix()).normalized()
}

/// Converts a map between pixels to one between normalized points.
pub(super) fn to_normalized(
    map: &Homography,
    from: &Normalizer,
    to: &Normalizer,
) -> Option<[f64; 8]> {
    let Homography(entries) = to.matrix().compose(map).compose(&from.inverse()).normalized()?;
    Some(std::array::from_fn(|i| entries[i]))
}

/// The homography of least algebraic error (normalized DLT; Hartley and Zisserman, algorithm 4.2): exact
/// for four correspondences, a starting point for refinement for more.
///
/// `None` for fewer than four or degenerate correspondences.
pub(super) fn fit(pairs: &[Correspondence]) -> Option<Homography> {
    if pairs.len() < 4 {
        return None;
    }
    let from = Normalizer::of(pairs.iter().map(|pair| pair.from))?;
    let to = Normalizer::of(pairs.iter().map(|pair| pair.to))?;
    let mut equations = NormalEquations::new();
    for pair in pairs {
        let (x, y) = from.apply(pair.from);
        let (u, v) = to.apply(pair.to);
        equations.add(&[x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y], u, 1.0);
        equations.add(&[0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y], v, 1.0);
    }
    to_pixels(&equations.solve()?, &from, &to)
}

#[cfg(test)]
mod tests {
    use super::super::TILTED;
    use super::*;

    fn pairs(points: &[Point]) -> Vec<Correspondence> {
        let pair = |&from| Correspondence { from, to: TILTED.apply(from).unwrap(), sigma: 1.0 };
        points.iter().map(pair).collect()
    }

    #[test]
    fn four_points_determine_the_map() {
        let pairs = pairs(&[(10.0, 12.0), (600.0, 40.0), (550.0, 420.0), (33.0, 400.0)]);
        let found = fit(&pairs).unwrap();
        for (a, b) in found.0.iter().zip(TILTED.0) {
            assert!((a - b).abs() < 1e-7 * b.abs().max(1e-2), "{found:?}");
        }
    }

    #[test]
    fn collinear_or_coincident_points_are_degenerate() {
        let line: Vec<Point> = (0..6).map(|i| (f64::from(i) * 50.0, f64::from(i) * 20.0)).collect();
        assert_eq!(fit(&pairs(&line)), None);
        assert_eq!(fit(&pairs(&[(5.0, 5.0); 4])), None);
        assert_eq!(fit(&pairs(&[(0.0, 0.0), (9.0, 0.0), (0.0, 9.0)])), None);
    }

    #[test]
    fn normalization_round_trips() {
        let points = [(10.0, 12.0), (600.0, 40.0), (550.0, 420.0)];
        let from = Normalizer::of(points.into_iter()).unwrap();
        let to = Normalizer::of(points.into_iter().map(|(x, y)| (y + 9.0, x))).unwrap();
        let back = to_pixels(&to_normalized(&TILTED, &from, &to).unwrap(), &from, &to).unwrap();
        for (a, b) in back.0.iter().zip(TILTED.0) {
            assert!((a - b).abs() < 1e-9 * b.abs().max(1.0));
        }
    }
}

//! Homographies: projective maps between two views of a plane, or from one camera center.

mod fit;
mod ransac;
mod refine;

use std::fmt;

use serde::Serialize;

pub use ransac::{find_homography, inliers, refit};

/// A point: pixels from the left, pixels from the top.
pub type Point = (f64, f64);

/// A 3 × 3 matrix in row-major order that maps points of one image to another's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Homography(pub [f64; 9]);

/// A pair of corresponding points in two images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correspondence {
    /// The point in the first image.
    pub from: Point,
    /// The point in the second image.
    pub to: Point,
    /// Standard deviation of the error, in pixels of the second image; only ratios matter.
    pub sigma: f64,
}

/// Why no reliable homography was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HomographyFailure {
    /// Too few matches.
    FewMatches,
    /// No homography has ten inliers.
    #[serde(rename = "no_agreement")]
    NoConsensus,
    /// The inlier ratio is too low: the homography fits only a detail of the scene.
    #[serde(rename = "little_agreement")]
    LowInlierRatio,
    /// The homography is not a plausible view: mirrored, folded, or scaled by too much.
    #[serde(rename = "no_view")]
    Implausible,
    /// The inliers do not determine the projection of the frame's corners.
    #[serde(rename = "loose_corners")]
    UncertainCorners,
}

impl fmt::Display for HomographyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FewMatches => "too few matches",
            Self::NoConsensus => "too few inliers",
            Self::LowInlierRatio => "the inlier ratio is too low",
            Self::Implausible => "the homography is not a plausible view",
            Self::UncertainCorners => "the projected corners are uncertain",
        })
    }
}

/// Maximum reprojection error of an inlier.
pub const INLIER_PX: f64 = 5.0;

impl Homography {
    /// The identity.
    #[cfg(test)]
    pub(crate) const IDENTITY: Self = Self([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);

    /// Projects a point; `None` if it is at or behind the horizon.
    #[must_use]
    pub fn apply(&self, (x, y): Point) -> Option<Point> {
        let h = &self.0;
        let depth = h[6] * x + h[7] * y + h[8];
        if depth <= 1e-9 {
            return None;
        }
        Some(((h[0] * x + h[1] * y + h[2]) / depth, (h[3] * x + h[4] * y + h[5]) / depth))
    }

    /// The composition: `first`, then this map.
    #[must_use]
    pub fn compose(&self, first: &Self) -> Self {
        let (a, b) = (&self.0, &first.0);
        Self(std::array::from_fn(|i| {
            let (row, column) = (i / 3 * 3, i % 3);
            (0..3).map(|k| a[row + k] * b[3 * k + column]).sum()
        }))
    }

    /// The same map with 1 as the last entry; `None` if that is 0 or an entry is not finite.
    fn normalized(&self) -> Option<Self> {
        let last = self.0[8];
        let normalized = Self(self.0.map(|entry| entry / last));
        normalized.0.iter().all(|entry| entry.is_finite()).then_some(normalized)
    }

    /// Squared reprojection error of a correspondence, in square pixels.
    fn squared_error(&self, pair: &Correspondence) -> f64 {
        match self.apply(pair.from) {
            Some((x, y)) => (x - pair.to.0).powi(2) + (y - pair.to.1).powi(2),
            None => f64::INFINITY,
        }
    }

    /// Projects the corners of an image of `width` × `height`, clockwise from the top left.
    ///
    /// `None` if the result is implausible: corners behind the horizon, a quadrilateral that
    /// is not convex or is mirrored, or an area ratio outside [`AREA_RATIOS`].
    #[must_use]
    pub fn project_frame(&self, width: f64, height: f64) -> Option<[Point; 4]> {
        let corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)];
        let mut quad = corners;
        for (to, from) in quad.iter_mut().zip(corners) {
            *to = self.apply(from)?;
        }
        let cross = |i: usize| {
            let (a, b, c) = (quad[i], quad[(i + 1) % 4], quad[(i + 2) % 4]);
            (b.0 - a.0) * (c.1 - b.1) - (b.1 - a.1) * (c.0 - b.0)
        };
        let ratio = area(&quad) / (width * height);
        let is_plausible = (0..4).all(|i| cross(i) > 0.0) && AREA_RATIOS.contains(&ratio);
        is_plausible.then_some(quad)
    }
}

/// Plausible ratios of a frame's projected area to its own.
pub const AREA_RATIOS: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// The signed area of a polygon; negative if its corners are counter-clockwise on the screen.
pub(super) fn area(corners: &[Point]) -> f64 {
    let next = corners.iter().cycle().skip(1);
    let cross = |(a, b): (&Point, &Point)| a.0 * b.1 - b.0 * a.1;
    corners.iter().zip(next).map(cross).sum::<f64>() / 2.0
}

#[cfg(test)]
/// Translates, rotates, scales and tilts.
const TILTED: Homography = Homography([1.1, -0.12, 40.0, 0.15, 0.95, -25.0, 2e-4, -1e-4, 1.0]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_compose() {
        let shift = Homography([1.0, 0.0, 3.0, 0.0, 1.0, -2.0, 0.0, 0.0, 1.0]);
        let both = TILTED.compose(&shift).apply((10.0, 20.0)).unwrap();
        let one_by_one = TILTED.apply(shift.apply((10.0, 20.0)).unwrap()).unwrap();
        assert!((both.0 - one_by_one.0).abs() < 1e-9 && (both.1 - one_by_one.1).abs() < 1e-9);
    }

    #[test]
    fn a_mirrored_folded_vanishing_or_huge_frame_is_implausible() {
        let mirrored = [-1.0, 0.0, 640.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let behind = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, -0.002, 0.0, 1.0];
        let tiny = [0.05, 0.0, 0.0, 0.0, 0.05, 0.0, 0.0, 0.0, 1.0];
        let huge = [20.0, 0.0, 0.0, 0.0, 20.0, 0.0, 0.0, 0.0, 1.0];
        let flat = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        for broken in [mirrored, behind, tiny, huge, flat] {
            assert_eq!(Homography(broken).project_frame(640.0, 480.0), None, "{broken:?}");
        }
        assert!(TILTED.project_frame(640.0, 480.0).is_some());
    }
}

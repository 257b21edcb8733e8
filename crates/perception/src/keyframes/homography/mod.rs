//! The projective map between two views of a plane, or of anything seen from one place.

mod fit;
mod ransac;
mod refine;

use std::fmt;

use serde::Serialize;

pub use ransac::{inliers, search, settle};

/// A point: pixels from the left, pixels from the top.
pub type Point = (f64, f64);

/// A 3 × 3 matrix, row by row, that maps points of one picture to another's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Homography(pub [f64; 9]);

/// A point of one picture and the same one in another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correspondence {
    /// Where it is mapped from.
    pub from: Point,
    /// Where it should come to lie.
    pub to: Point,
    /// Expected error in pixels of the other picture; only the ratios count.
    pub deviation: f64,
}

/// Why a homography is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Doubt {
    /// Too few features match.
    FewMatches,
    /// No ten matches agree on a map.
    NoAgreement,
    /// What agrees is a small part of what matches: a detail of the scene.
    LittleAgreement,
    /// What agrees is no view of a frame: mirrored, crossed, or shrunk or blown up beyond reason.
    NoView,
    /// What agrees leaves open where the frame's corners come to lie.
    LooseCorners,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FewMatches => "too few features match",
            Self::NoAgreement => "what matches agrees on nothing",
            Self::LittleAgreement => "too little of what matches agrees",
            Self::NoView => "what agrees is no view of a frame",
            Self::LooseCorners => "what agrees leaves the frame's corners open",
        })
    }
}

/// Distance up to which a mapped point counts as in its place.
pub const INLIER_PX: f64 = 5.0;

impl Homography {
    /// The map that leaves all points where they are.
    pub const IDENTITY: Self = Self([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);

    /// Where `point` comes to lie; `None` where that is at or behind the horizon.
    #[must_use]
    pub fn apply(&self, (x, y): Point) -> Option<Point> {
        let h = &self.0;
        let depth = h[6] * x + h[7] * y + h[8];
        if depth <= 1e-9 {
            return None;
        }
        Some(((h[0] * x + h[1] * y + h[2]) / depth, (h[3] * x + h[4] * y + h[5]) / depth))
    }

    /// The map that does `first` and then this one.
    #[must_use]
    pub fn after(&self, first: &Self) -> Self {
        let (a, b) = (&self.0, &first.0);
        Self(std::array::from_fn(|i| {
            let (row, column) = (i / 3 * 3, i % 3);
            (0..3).map(|k| a[row + k] * b[3 * k + column]).sum()
        }))
    }

    /// The same map with 1 as the matrix' last entry; `None` where that is 0 or the map is broken.
    fn scaled(&self) -> Option<Self> {
        let last = self.0[8];
        let scaled = Self(self.0.map(|entry| entry / last));
        scaled.0.iter().all(|entry| entry.is_finite()).then_some(scaled)
    }

    /// Squared distance, in pixels, between where a correspondence comes to lie and where it should.
    fn squared_error(&self, pair: &Correspondence) -> f64 {
        match self.apply(pair.from) {
            Some((x, y)) => (x - pair.to.0).powi(2) + (y - pair.to.1).powi(2),
            None => f64::INFINITY,
        }
    }

    /// Where the corners of a picture of `width` × `height` come to lie, clockwise from the top left.
    ///
    /// `None` where no camera could have seen that: corners behind the horizon, a quadrilateral that
    /// is crossed, dented, mirrored, or shrunk or blown up beyond [`AREA_RATIOS`].
    #[must_use]
    pub fn project_frame(&self, width: f64, height: f64) -> Option<[Point; 4]> {
        let corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)];
        let mut quad = corners;
        for (to, from) in quad.iter_mut().zip(corners) {
            *to = self.apply(from)?;
        }
        let turn = |i: usize| {
            let (a, b, c) = (quad[i], quad[(i + 1) % 4], quad[(i + 2) % 4]);
            (b.0 - a.0) * (c.1 - b.1) - (b.1 - a.1) * (c.0 - b.0)
        };
        let ratio = super::overlap::area(&quad) / (width * height);
        let is_plausible = (0..4).all(|i| turn(i) > 0.0) && AREA_RATIOS.contains(&ratio);
        is_plausible.then_some(quad)
    }
}

/// How much smaller or larger a frame may appear in another one's view.
pub const AREA_RATIOS: std::ops::RangeInclusive<f64> = 0.01..=100.0;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Moves, turns, zooms and tilts.
    pub(in crate::keyframes) const TILTED: Homography =
        Homography([1.1, -0.12, 40.0, 0.15, 0.95, -25.0, 2e-4, -1e-4, 1.0]);

    #[test]
    fn maps_follow_each_other() {
        let shift = Homography([1.0, 0.0, 3.0, 0.0, 1.0, -2.0, 0.0, 0.0, 1.0]);
        let both = TILTED.after(&shift).apply((10.0, 20.0)).unwrap();
        let one_by_one = TILTED.apply(shift.apply((10.0, 20.0)).unwrap()).unwrap();
        assert!((both.0 - one_by_one.0).abs() < 1e-9 && (both.1 - one_by_one.1).abs() < 1e-9);
    }

    #[test]
    fn a_mirrored_crossed_vanished_or_endless_frame_is_no_view() {
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

//! Points of a gray picture that are found again in another one, and what they look like.
//!
//! The recipe is ORB's (Rublee et al. 2011): FAST corners over a pyramid of sizes, turned by the
//! intensity centroid and described by 256 comparisons of brightness. Unlike the original, corners are
//! spread over the picture, as a homography is known best where its points lie far apart, and located
//! to a fraction of a pixel, where Harris' measure is greatest; what they are ranked by is FAST's
//! score, which is at hand and serves a homography as well.

mod brief;
mod corners;
mod pyramid;
mod spread;

use std::collections::HashSet;

use image::GrayImage;
use multiversion::multiversion;
use pyramid::Level;

pub use brief::Descriptor;

/// A point of a picture. Whole coordinates are the middles of pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keypoint {
    /// Pixels from the left.
    pub x: f64,
    /// Pixels from the top.
    pub y: f64,
    /// The side of a pixel of the level it was found at, in pixels of the picture: its location is
    /// about as exact as that.
    pub scale: f64,
}

/// The features of a picture.
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// Where they are.
    pub points: Vec<Keypoint>,
    /// What each looks like.
    pub descriptors: Vec<Descriptor>,
}

/// How many features a picture has at most.
const FEATURES: usize = 1000;

/// Finds the features of `picture`. Pictures without corners have none.
#[multiversion(targets = "simd")]
#[must_use]
pub fn extract(picture: &GrayImage) -> Features {
    let levels = pyramid::build(picture);
    let shares = pyramid::shares(&levels, FEATURES);
    let mut features = Features::default();
    for (level, share) in levels.iter().zip(shares) {
        add_level(&mut features, level, share);
    }
    features
}

/// Adds at most `share` features of `level`.
#[inline(always)]
fn add_level(features: &mut Features, level: &Level, share: usize) {
    let plane = &level.plane;
    let corners = corners::find(plane, share);
    let chosen = spread::choose(corners, share, plane.width, plane.height);
    let blurred = plane.blurred();
    let mut taken = HashSet::new();
    for corner in chosen {
        let (corner, (column, row)) = corners::locate(plane, corner);
        if !taken.insert((corner.column, corner.row)) {
            continue;
        }
        let turn = brief::orientation(plane, corner.column, corner.row);
        features.points.push(Keypoint {
            x: level.to_picture(column),
            y: level.to_picture(row),
            scale: level.scale(),
        });
        features.descriptors.push(brief::describe(&blurred, corner.column, corner.row, turn));
    }
}

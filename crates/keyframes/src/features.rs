//! Feature detection and description, for matching gray images.
//!
//! The method is ORB (Rublee et al. 2011): FAST corners over an image pyramid, oriented by the intensity
//! centroid and described by 256 intensity comparisons. Unlike the original, corners are distributed over
//! the image, since homographies need points far apart, and localized to subpixels by the Harris response.
//! They are ranked by the FAST score, which is already computed and works as well for homographies.

mod brief;
mod bucketing;
mod corners;
mod pyramid;

use std::collections::HashSet;

use image::GrayImage;
use multiversion::multiversion;
use pyramid::Level;

pub use brief::Descriptor;

/// A keypoint. Integer coordinates are pixel centers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keypoint {
    /// Pixels from the left.
    pub x: f64,
    /// Pixels from the top.
    pub y: f64,
    /// The pixel size of its pyramid level, in image pixels; its location error is of this order.
    pub scale: f64,
}

/// The features of an image.
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// The keypoints.
    pub points: Vec<Keypoint>,
    /// The keypoints' descriptors.
    pub descriptors: Vec<Descriptor>,
}

/// Maximum features per image.
const MAX_FEATURES: usize = 1000;

/// Extracts the features of `image`; an image without corners has none.
#[multiversion(targets = "simd")]
#[must_use]
pub fn extract(image: &GrayImage) -> Features {
    let levels = pyramid::build(image);
    let counts = pyramid::feature_counts(&levels, MAX_FEATURES);
    let mut features = Features::default();
    for (level, count) in levels.iter().zip(counts) {
        add_level(&mut features, level, count);
    }
    features
}

/// Adds at most `count` features of `level`.
#[inline(always)]
fn add_level(features: &mut Features, level: &Level, count: usize) {
    let plane = &level.plane;
    let corners = corners::find(plane, count);
    let selected = bucketing::select(corners, count, plane.width, plane.height);
    let blurred = plane.blurred();
    let mut taken = HashSet::new();
    for corner in selected {
        let (corner, (column, row)) = corners::locate(plane, corner);
        if !taken.insert((corner.column, corner.row)) {
            continue;
        }
        let orientation = brief::orientation(plane, corner.column, corner.row);
        features.points.push(Keypoint {
            x: level.to_image(column),
            y: level.to_image(row),
            scale: level.scale(),
        });
        features.descriptors.push(brief::describe(
            &blurred,
            corner.column,
            corner.row,
            orientation,
        ));
    }
}

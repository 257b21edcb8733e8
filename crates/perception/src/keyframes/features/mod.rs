//! Points of a gray picture that are found again in another one, and what they look like.
//!
//! The recipe is ORB's (Rublee et al. 2011): FAST corners over a pyramid of sizes, ranked by Harris'
//! measure, turned by the intensity centroid and described by 256 comparisons of brightness. Unlike
//! the original, corners are spread over the picture, as a homography is known best where its points
//! lie far apart, and located to a fraction of a pixel.

mod brief;
mod corners;
mod pyramid;
mod spread;

use image::GrayImage;

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
#[must_use]
pub fn extract(picture: &GrayImage) -> Features {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || extract_plain(picture),
    )
}

#[inline(always)]
fn extract_plain(picture: &GrayImage) -> Features {
    let levels = pyramid::build(picture);
    let shares = pyramid::shares(&levels, FEATURES);
    let mut features = Features::default();
    for (level, share) in levels.iter().zip(shares) {
        let corners = corners::find(&level.plane, share);
        let chosen = spread::choose(corners, share, level.plane.width, level.plane.height);
        let blurred = level.plane.blurred();
        for corner in chosen {
            let angle = brief::orientation(&level.plane, corner.column, corner.row);
            let (column, row) = corners::locate(&level.plane, &corner);
            features.points.push(Keypoint {
                x: level.to_picture_x(column),
                y: level.to_picture_y(row),
                scale: level.scale(),
            });
            features.descriptors.push(brief::describe(&blurred, corner.column, corner.row, angle));
        }
    }
    features
}

//! Comparing two frames: their homography and overlap.

use image::GrayImage;

use super::features::{Features, extract};
use super::homography::{
    Correspondence, Homography, HomographyFailure, find_homography, inliers, refit,
};
use super::matching::{Match, cross_checked, guided};
use super::overlap::overlap;

/// The features of a frame, for comparisons.
#[derive(Debug, Clone)]
pub struct FrameFeatures {
    /// The features.
    pub features: Features,
    /// Width and height in pixels.
    pub size: (f64, f64),
}

impl FrameFeatures {
    /// Extracts the features of `frame`.
    #[must_use]
    pub fn extract(frame: &GrayImage) -> Self {
        let size = (f64::from(frame.width()), f64::from(frame.height()));
        Self { features: extract(frame), size }
    }
}

/// A comparison of a frame `b` with a frame `a`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameComparison {
    /// Maps points of `b` to points of `a`, with 1 as its last entry; `None` if none was found.
    pub homography: Option<Homography>,
    /// The share of `a` covered by `b`, from 0 to 1; `None` without a homography.
    pub overlap: Option<f64>,
    /// Number of matched features.
    pub matches: usize,
    /// Inliers of the homography.
    pub inliers: usize,
    /// Why no reliable homography was found.
    pub uncertain: Option<HomographyFailure>,
}

/// A homography needs more matches than this (Embodied-R's code).
const TOO_FEW_MATCHES: usize = 10;

/// Minimum share of inliers among the matches. Fewer inliers describe a detail of the scene, not the
/// frame.
const MIN_INLIER_RATIO: f64 = 0.15;

/// Compares `b` with `a`.
#[must_use]
pub fn compare(a: &FrameFeatures, b: &FrameFeatures) -> FrameComparison {
    let matches = cross_checked(&a.features.descriptors, &b.features.descriptors);
    let pairs = correspondences(a, b, &matches);
    match register(a, b, &pairs) {
        Ok((homography, inliers)) => FrameComparison {
            homography: Some(homography),
            overlap: overlap(&homography, b.size, a.size),
            matches: pairs.len(),
            inliers,
            uncertain: None,
        },
        Err(failure) => FrameComparison {
            homography: None,
            overlap: None,
            matches: pairs.len(),
            inliers: 0,
            uncertain: Some(failure),
        },
    }
}

/// The homography of the matches, refitted to guided matches around it, and its inliers among `pairs`.
fn register(
    a: &FrameFeatures,
    b: &FrameFeatures,
    pairs: &[Correspondence],
) -> Result<(Homography, usize), HomographyFailure> {
    if pairs.len() <= TOO_FEW_MATCHES {
        return Err(HomographyFailure::FewMatches);
    }
    let initial = find_homography(pairs, b.size).ok_or(HomographyFailure::NoConsensus)?;
    let more = correspondences(a, b, &guided(&a.features, &b.features, &initial));
    let homography = refit(&more, initial, b.size)?;
    let inliers = inliers(pairs, &homography).len();
    match (inliers as f64) < MIN_INLIER_RATIO * pairs.len() as f64 {
        true => Err(HomographyFailure::LowInlierRatio),
        false => Ok((homography, inliers)),
    }
}

fn correspondences(a: &FrameFeatures, b: &FrameFeatures, matches: &[Match]) -> Vec<Correspondence> {
    let correspondence = |m: &Match| {
        let (to, from) = (a.features.points[m.a], b.features.points[m.b]);
        let sigma = to.scale.hypot(from.scale);
        Correspondence { from: (from.x, from.y), to: (to.x, to.y), sigma }
    };
    matches.iter().map(correspondence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_video::clips::texture;

    const SIZE: (u32, u32) = (320, 240);

    /// The view of an endless texture through `map`.
    fn view_through(map: &Homography) -> GrayImage {
        GrayImage::from_fn(SIZE.0, SIZE.1, |x, y| {
            let (x, y) = map.apply((f64::from(x), f64::from(y))).unwrap();
            image::Luma([texture(x, y)])
        })
    }

    /// The largest distance between a corner's projections by two maps.
    fn corner_error(found: &Homography, expected: &Homography) -> f64 {
        let size = (f64::from(SIZE.0), f64::from(SIZE.1));
        let corners = |map: &Homography| map.project_frame(size.0, size.1).unwrap();
        let far = |(a, b): (&(f64, f64), &(f64, f64))| (a.0 - b.0).hypot(a.1 - b.1);
        corners(found).iter().zip(&corners(expected)).map(far).fold(0.0, f64::max)
    }

    #[test]
    fn a_known_homography_is_recovered_within_a_pixel() {
        let a = FrameFeatures::extract(&view_through(&Homography::IDENTITY));
        let maps = [
            [1.0, 0.0, 60.0, 0.0, 1.0, -30.0, 0.0, 0.0, 1.0],
            [0.9, -0.3, 70.0, 0.3, 0.9, -40.0, 0.0, 0.0, 1.0],
            [0.7, 0.0, 50.0, 0.0, 0.7, 30.0, 0.0, 0.0, 1.0],
            [1.1, 0.05, -20.0, 0.1, 0.95, 8.0, 3e-4, -2e-4, 1.0],
            [-1.0, 0.0, 319.0, 0.0, -1.0, 239.0, 0.0, 0.0, 1.0],
        ];
        for map in maps.map(Homography) {
            let found = compare(&a, &FrameFeatures::extract(&view_through(&map)));
            let error = corner_error(&found.homography.unwrap(), &map);
            assert!(error < 1.0, "{error} px off {map:?}");
            let expected = overlap(&map, a.size, a.size).unwrap();
            assert!((found.overlap.unwrap() - expected).abs() < 0.005);
        }
    }

    #[test]
    fn a_frame_overlaps_itself_completely() {
        let view = FrameFeatures::extract(&view_through(&Homography::IDENTITY));
        let found = compare(&view, &view);
        assert_eq!(found.matches, found.inliers);
        assert!(corner_error(&found.homography.unwrap(), &Homography::IDENTITY) < 1e-6);
        assert!((found.overlap.unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn unrelated_frames_have_no_homography() {
        let elsewhere = Homography([1.0, 0.0, 5000.0, 0.0, 1.0, 3000.0, 0.0, 0.0, 1.0]);
        let a = FrameFeatures::extract(&view_through(&Homography::IDENTITY));
        let found = compare(&a, &FrameFeatures::extract(&view_through(&elsewhere)));
        assert_eq!((found.homography, found.overlap, found.inliers), (None, None, 0));
        assert!(found.uncertain.is_some());
    }

    #[test]
    fn a_mirrored_frame_has_no_homography() {
        let view = view_through(&Homography::IDENTITY);
        let mirrored = image::imageops::flip_horizontal(&view);
        assert_eq!(
            compare(&FrameFeatures::extract(&view), &FrameFeatures::extract(&mirrored)).homography,
            None
        );
    }

    #[test]
    fn a_frame_without_features_is_uncertain() {
        let plain =
            FrameFeatures::extract(&GrayImage::from_pixel(SIZE.0, SIZE.1, image::Luma([90])));
        let view = FrameFeatures::extract(&view_through(&Homography::IDENTITY));
        assert_eq!(compare(&view, &plain).uncertain, Some(HomographyFailure::FewMatches));
        assert_eq!(compare(&view, &view).uncertain, None);
    }

    #[test]
    fn frames_of_different_sizes_are_comparable() {
        let whole = view_through(&Homography::IDENTITY);
        let part = image::imageops::crop_imm(&whole, 40, 60, 200, 150).to_image();
        let found = compare(&FrameFeatures::extract(&whole), &FrameFeatures::extract(&part));
        let expected = 200.0 * 150.0 / (320.0 * 240.0);
        assert!((found.overlap.unwrap() - expected).abs() < 0.005, "{found:?}");
    }
}

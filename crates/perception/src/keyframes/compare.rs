//! Two frames side by side.

use std::path::Path;

use embodied_r_vision::picture;
use image::{GrayImage, imageops};

use super::features::{Features, extract};
use super::homography::{Correspondence, Doubt, Homography, inliers, search, settle};
use super::matching::{Match, cross_checked, guided};
use super::overlap::overlap;
use crate::error::Error;

/// A frame, as far as comparing it needs.
#[derive(Debug, Clone)]
pub struct View {
    /// Its features.
    pub features: Features,
    /// Width and height in pixels.
    pub size: (f64, f64),
}

impl View {
    /// The view of `frame`.
    #[must_use]
    pub fn of(frame: &GrayImage) -> Self {
        let size = (f64::from(frame.width()), f64::from(frame.height()));
        Self { features: extract(frame), size }
    }
}

/// How a frame `b` lies over a frame `a`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Maps points of `b` to points of `a`, with 1 as its last entry; `None` where none was found.
    pub homography: Option<Homography>,
    /// The share of `a` that `b` covers, from 0 to 1; `None` without a homography.
    pub overlap: Option<f64>,
    /// Features that match.
    pub matches: usize,
    /// Matches that the homography brings to their place.
    pub inliers: usize,
    /// Why there is no homography, rather than a wild one.
    pub uncertain: Option<Doubt>,
}

/// Matches that a comparison needs more than (Embodied-R's code).
const TOO_FEW_MATCHES: usize = 10;

/// Share of the matches that must agree with a homography. What fewer agree on is a detail of the
/// scene, which says nothing about the frame around it.
const LEAST_SUPPORT: f64 = 0.15;

/// Compares `b` with `a`.
#[must_use]
pub fn compare(a: &View, b: &View) -> Comparison {
    let matches = cross_checked(&a.features.descriptors, &b.features.descriptors);
    let pairs = correspondences(a, b, &matches);
    match find(a, b, &pairs) {
        Ok((homography, inliers)) => Comparison {
            homography: Some(homography),
            overlap: overlap(&homography, b.size, a.size),
            matches: pairs.len(),
            inliers,
            uncertain: None,
        },
        Err(doubt) => Comparison {
            homography: None,
            overlap: None,
            matches: pairs.len(),
            inliers: 0,
            uncertain: Some(doubt),
        },
    }
}

/// Compares the picture file `b` with the picture file `a`.
///
/// # Errors
/// Those of [`picture::read`] about the one that cannot be read.
pub fn pictures(a: &Path, b: &Path) -> Result<Comparison, Error> {
    let view = |path: &Path| -> Result<View, Error> {
        Ok(View::of(&imageops::grayscale(&picture::read(path)?)))
    };
    Ok(compare(&view(a)?, &view(b)?))
}

/// The homography that the matches agree with, fitted to all features that match once it is known
/// where to look for them, and how many of `pairs` agree.
fn find(a: &View, b: &View, pairs: &[Correspondence]) -> Result<(Homography, usize), Doubt> {
    if pairs.len() <= TOO_FEW_MATCHES {
        return Err(Doubt::FewMatches);
    }
    let rough = search(pairs, b.size).ok_or(Doubt::NoAgreement)?;
    let more = correspondences(a, b, &guided(&a.features, &b.features, &rough));
    let homography = settle(&more, rough, b.size)?;
    let inliers = inliers(pairs, &homography).len();
    match (inliers as f64) < LEAST_SUPPORT * pairs.len() as f64 {
        true => Err(Doubt::LittleAgreement),
        false => Ok((homography, inliers)),
    }
}

fn correspondences(a: &View, b: &View, matches: &[Match]) -> Vec<Correspondence> {
    let pair = |m: &Match| {
        let (to, from) = (a.features.points[m.a], b.features.points[m.b]);
        let deviation = to.scale.hypot(from.scale);
        Correspondence { from: (from.x, from.y), to: (to.x, to.y), deviation }
    };
    matches.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::clips::texture;

    const SIZE: (u32, u32) = (320, 240);

    /// The part of an endless texture that a camera sees through `map`.
    fn seen_through(map: &Homography) -> GrayImage {
        GrayImage::from_fn(SIZE.0, SIZE.1, |x, y| {
            let (x, y) = map.apply((f64::from(x), f64::from(y))).unwrap();
            image::Luma([texture(x, y)])
        })
    }

    /// The largest distance between where two maps bring a corner.
    fn corner_error(found: &Homography, wanted: &Homography) -> f64 {
        let size = (f64::from(SIZE.0), f64::from(SIZE.1));
        let corners = |map: &Homography| map.project_frame(size.0, size.1).unwrap();
        let far = |(a, b): (&(f64, f64), &(f64, f64))| (a.0 - b.0).hypot(a.1 - b.1);
        corners(found).iter().zip(&corners(wanted)).map(far).fold(0.0, f64::max)
    }

    #[test]
    fn a_known_homography_is_found_to_a_pixel() {
        let a = View::of(&seen_through(&Homography::IDENTITY));
        let maps = [
            [1.0, 0.0, 60.0, 0.0, 1.0, -30.0, 0.0, 0.0, 1.0],
            [0.9, -0.3, 70.0, 0.3, 0.9, -40.0, 0.0, 0.0, 1.0],
            [0.7, 0.0, 50.0, 0.0, 0.7, 30.0, 0.0, 0.0, 1.0],
            [1.1, 0.05, -20.0, 0.1, 0.95, 8.0, 3e-4, -2e-4, 1.0],
            [-1.0, 0.0, 319.0, 0.0, -1.0, 239.0, 0.0, 0.0, 1.0],
        ];
        for map in maps.map(Homography) {
            let found = compare(&a, &View::of(&seen_through(&map)));
            let error = corner_error(&found.homography.unwrap(), &map);
            assert!(error < 1.0, "{error} px off {map:?}");
            let wanted = overlap(&map, a.size, a.size).unwrap();
            assert!((found.overlap.unwrap() - wanted).abs() < 0.005);
        }
    }

    #[test]
    fn a_frame_lies_over_itself() {
        let view = View::of(&seen_through(&Homography::IDENTITY));
        let found = compare(&view, &view);
        assert_eq!(found.matches, found.inliers);
        assert!(corner_error(&found.homography.unwrap(), &Homography::IDENTITY) < 1e-6);
        assert!((found.overlap.unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn unrelated_frames_have_no_homography() {
        let elsewhere = Homography([1.0, 0.0, 5000.0, 0.0, 1.0, 3000.0, 0.0, 0.0, 1.0]);
        let a = View::of(&seen_through(&Homography::IDENTITY));
        let found = compare(&a, &View::of(&seen_through(&elsewhere)));
        assert_eq!((found.homography, found.overlap, found.inliers), (None, None, 0));
        assert!(found.uncertain.is_some());
    }

    #[test]
    fn a_mirror_image_is_not_another_view() {
        let view = seen_through(&Homography::IDENTITY);
        let mirrored = image::imageops::flip_horizontal(&view);
        assert_eq!(compare(&View::of(&view), &View::of(&mirrored)).homography, None);
    }

    #[test]
    fn what_has_no_features_is_uncertain_for_that() {
        let plain = View::of(&GrayImage::from_pixel(SIZE.0, SIZE.1, image::Luma([90])));
        let view = View::of(&seen_through(&Homography::IDENTITY));
        assert_eq!(compare(&view, &plain).uncertain, Some(Doubt::FewMatches));
        assert_eq!(compare(&view, &view).uncertain, None);
    }

    #[test]
    fn frames_of_different_sizes_compare() {
        let whole = seen_through(&Homography::IDENTITY);
        let part = image::imageops::crop_imm(&whole, 40, 60, 200, 150).to_image();
        let found = compare(&View::of(&whole), &View::of(&part));
        let wanted = 200.0 * 150.0 / (320.0 * 240.0);
        assert!((found.overlap.unwrap() - wanted).abs() < 0.005, "{found:?}");
    }
}

//! What the frames of pretraining show.

use std::fmt::Debug;

use embodied_r_sim::arm::{self, Located, Renderer, Scene};
use embodied_r_sim::views::{self, Sighted, VIEW_SIZE, Views};
use image::RgbImage;

use super::arm_text;
use crate::arm_corpus;
use crate::corpus::{self, Document};
use crate::detection::DetectedObject;

/// A side of a merged token in pixels.
const TOKEN_PX: usize = 28;

/// A kind of simulated world.
pub(super) trait World: Debug + Send + Sync + 'static {
    /// What frames show.
    type Place: Debug + Send + Sync;
    /// Frames per place.
    const FRAMES: usize;
    /// Width and height of a frame in pixels.
    const SIZE: (usize, usize);
    /// One document in this many is without frames, so that what the text model knows is kept.
    const TEXT_EVERY: u64;

    /// Place `index` of `seed`.
    fn place(seed: u64, index: u64) -> Self::Place;

    /// The pixels of a frame.
    fn render(place: &Self::Place, frame: usize) -> Option<RgbImage>;

    /// Number of classes of objects.
    fn classes() -> usize;

    /// Bins of each coordinate of an object's position.
    fn bins() -> Vec<usize>;

    /// The objects in a frame.
    fn objects(place: &Self::Place, frame: usize) -> Vec<DetectedObject>;

    /// Document `index` of `seed` about the frames of a place.
    fn document(place: &Self::Place, seed: u64, index: u64) -> Document;

    /// Document `index` of `seed` without frames.
    fn text(seed: u64, index: u64) -> Document;
}

/// The token of a point at fractions of the frame from the left and from the top.
fn token([across, down]: [f64; 2], (width, height): (usize, usize)) -> usize {
    let cell = |part: f64, side: usize| (part * (side / TOKEN_PX) as f64) as usize;
    cell(down, height) * (width / TOKEN_PX) + cell(across, width)
}

/// The bin of a value, of `bins` that are `width` wide and start at `low`.
fn bin(value: f64, low: f64, width: f64, bins: usize) -> usize {
    (((value - low) / width).max(0.0) as usize).min(bins - 1)
}

/// Rooms, each with four frames along a path.
#[derive(Debug)]
pub(super) struct Rooms;

impl World for Rooms {
    type Place = Views;
    const FRAMES: usize = views::FRAMES;
    const SIZE: (usize, usize) = VIEW_SIZE;
    const TEXT_EVERY: u64 = 6;

    fn place(seed: u64, index: u64) -> Views {
        views::views(seed, index)
    }

    fn render(views: &Views, frame: usize) -> Option<RgbImage> {
        let (width, height) = Self::SIZE;
        RgbImage::from_raw(width as u32, height as u32, views.render(frame))
    }

    fn classes() -> usize {
        views::classes()
    }

    /// Bearings from right 40 to left 40, every 10 degrees.
    fn bins() -> Vec<usize> {
        vec![9]
    }

    fn objects(views: &Views, frame: usize) -> Vec<DetectedObject> {
        let detected = |sighted: &Sighted| {
            let bin = (sighted.bearing_deg.clamp(-40, 40) + 40) / 10;
            DetectedObject {
                token: token(sighted.at, Self::SIZE),
                class: sighted.class,
                bins: vec![bin as usize],
            }
        };
        views.sighted(frame).iter().map(detected).collect()
    }

    fn document(views: &Views, seed: u64, index: u64) -> Document {
        corpus::views_document(views, seed, index)
    }

    fn text(seed: u64, index: u64) -> Document {
        corpus::chat_document(seed, index)
    }
}

/// Scenes of the robot arm, each with one frame.
#[derive(Debug)]
pub(super) struct Arm;

/// Lowest value and number of the bins of x, y and z, which are 2 cm wide.
const BINS: [(f64, usize); 3] = [(-0.08, 30), (-0.4, 40), (0.74, 26)];
const BIN_M: f64 = 0.02;

impl World for Arm {
    type Place = Scene;
    const FRAMES: usize = 1;
    const SIZE: (usize, usize) = (112, 112);
    /// Most of the documents are one short step.
    const TEXT_EVERY: u64 = 3;

    fn place(seed: u64, index: u64) -> Scene {
        arm::random_scene(seed, index)
    }

    fn render(scene: &Scene, _: usize) -> Option<RgbImage> {
        let (width, height) = Self::SIZE;
        RgbImage::from_raw(width as u32, height as u32, Renderer::new(Self::SIZE).draw(scene))
    }

    fn classes() -> usize {
        arm::classes()
    }

    fn bins() -> Vec<usize> {
        BINS.map(|(_, bins)| bins).to_vec()
    }

    fn objects(scene: &Scene, _: usize) -> Vec<DetectedObject> {
        let (width, height) = Self::SIZE;
        let detected = |located: Located| DetectedObject {
            token: token(located.at, Self::SIZE),
            class: located.class,
            bins: located
                .position_m
                .iter()
                .zip(BINS)
                .map(|(value, (low, bins))| bin(*value, low, BIN_M, bins))
                .collect(),
        };
        arm::located(scene, width as f64 / height as f64).into_iter().map(detected).collect()
    }

    fn document(scene: &Scene, seed: u64, index: u64) -> Document {
        arm_corpus::scene_document(scene, seed, index)
    }

    fn text(seed: u64, index: u64) -> Document {
        arm_text::document(seed, index)
    }
}

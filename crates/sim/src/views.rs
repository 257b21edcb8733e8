//! Rooms seen in a few frames, and questions about them for a vision-language model.

mod dataset;
mod pointing;
mod questions;

use embodied_r_data::prompts::FrameText;
use embodied_r_data::scene::{Scene, VisibleObject};
use embodied_r_random::Rng;

use crate::captions::captions_at;
use crate::catalogue::KINDS;
use crate::geometry::{bearing_deg, floor_distance_m};
use crate::render::Renderer;
pub use crate::world::path::FRAMES;
use crate::world::path::Path;
pub(crate) use dataset::write_png_of_size;
pub use dataset::{PERCEIVED, RATIONALE, ViewCounts, ViewKinds, perceived, write_png, write_views};
pub use pointing::{PointingQuestion, ViewAnswer, pointing_question};
pub use questions::{VIEW_CATEGORIES, ViewQuestion, view_question};

/// Width and height of a frame in pixels.
pub const VIEW_SIZE: (usize, usize) = (112, 84);

/// The place of an image in a text.
pub const IMAGE: &str = "<image>";

/// Furnished rooms per path; without a match another path is drawn.
const ATTEMPTS: u64 = 20_000;

/// A room and a few frames of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// The room; the camera has one pose per frame.
    pub scene: Scene,
    /// Seed of the textures.
    seed: u64,
}

/// An object in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sighted {
    /// Index of its class.
    pub class: usize,
    /// Bearing in degrees, left positive, rounded to 10.
    pub bearing_deg: i32,
    /// Horizontal and vertical position of its middle, as fractions of the frame.
    pub at: [f64; 2],
}

/// Number of object classes.
pub const fn classes() -> usize {
    KINDS.len()
}

/// Room `index` of `seed`, seen from a random path.
pub fn views(seed: u64, index: u64) -> Views {
    let furnished = |round: u64| {
        let path = Path::draw(&mut Rng::new(&[seed, index, 30, round]));
        let furnish = |attempt| path.furnish(&mut Rng::new(&[seed, index, 31, round, attempt]));
        (0..ATTEMPTS).find_map(furnish)
    };
    let mut round = 0;
    let scene = loop {
        if let Some(scene) = furnished(round) {
            break scene;
        }
        round += 1;
    };
    Views { scene, seed: texture_seed(seed, index) }
}

fn texture_seed(seed: u64, index: u64) -> u64 {
    Rng::new(&[seed, index, 34]).next_u64()
}

/// The focal length of a frame in pixels.
fn focal_px(scene: &Scene) -> f64 {
    let half_view = (scene.horizontal_fov_deg / 2.0).to_radians();
    VIEW_SIZE.0 as f64 / 2.0 / half_view.tan()
}

impl Views {
    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.scene.camera.len()
    }

    /// The truthful captions of the frames.
    #[must_use]
    pub fn captions(&self) -> Vec<FrameText> {
        captions_at(&self.scene, &(0..self.frames()).collect::<Vec<_>>())
    }

    /// The captions with `<image>` in place of what is in view.
    #[must_use]
    pub fn with_images(&self) -> Vec<FrameText> {
        let shown = |caption: FrameText| FrameText { view: IMAGE.to_owned(), ..caption };
        self.captions().into_iter().map(shown).collect()
    }

    /// The objects visible in a frame.
    #[must_use]
    pub fn sighted(&self, frame: usize) -> Vec<Sighted> {
        let Some(pose) = self.scene.camera.get(frame) else { return Vec::new() };
        let (width, height) = VIEW_SIZE;
        let focal_px = focal_px(&self.scene);
        let sighted = |seen: VisibleObject| {
            let class = KINDS.iter().position(|kind| kind.name == seen.name)?;
            let object = self.scene.objects.iter().find(|object| object.name == seen.name)?;
            let bearing = bearing_deg(pose, object).to_radians();
            let ahead_m = floor_distance_m(object.center_m, pose.position_m) * bearing.cos();
            let up_px = focal_px * (object.center_m[2] - pose.position_m[2]) / ahead_m.max(0.1);
            let across = 0.5 - focal_px * bearing.tan() / width as f64;
            let at = [across, 0.5 - up_px / height as f64].map(|part| part.clamp(0.0, 0.999));
            Some(Sighted { class, bearing_deg: seen.bearing_deg, at })
        };
        self.scene.visible_from(pose).into_iter().filter_map(sighted).collect()
    }

    /// The pixels of a frame: rows of red, green and blue bytes of [`VIEW_SIZE`], each the mean of four rays.
    #[must_use]
    pub fn render(&self, frame: usize) -> Vec<u8> {
        let (width, height) = VIEW_SIZE;
        let mut rgb = vec![0; 4 * width * height * 3];
        if let Some(pose) = self.scene.camera.get(frame) {
            Renderer::of_size(&self.scene, self.seed, (2 * width, 2 * height)).draw(pose, &mut rgb);
        }
        let at =
            |x: usize, y: usize, channel: usize| u32::from(rgb[3 * (y * 2 * width + x) + channel]);
        let mut small = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let rows = [2 * y, 2 * y + 1];
                    let sum: u32 = rows
                        .iter()
                        .map(|y| at(2 * x, *y, channel) + at(2 * x + 1, *y, channel))
                        .sum();
                    small.push(((sum + 2) / 4) as u8);
                }
            }
        }
        small
    }
}

#[cfg(test)]
mod tests;

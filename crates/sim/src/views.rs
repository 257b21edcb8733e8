//! Rooms seen in four frames, and questions about them for a vision-language model.
//!
//! Every question has a room of its own. Its camera path, its category, its options and the answer's class are drawn
//! before the room is furnished, and furniture is sampled until the answer is of that class: the frames alone tell it.

use std::fs;
use std::path::{Path as FilePath, PathBuf};

use embodied_r_data::Progress;
use embodied_r_data::prompts::{FrameText, perceived_prompt};
use embodied_r_data::question::Question;
use embodied_r_data::scene::Scene;
use embodied_r_files::{Error as FileError, write_atomic, write_atomic_with};
use embodied_r_random::Rng;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use rayon::prelude::*;
use serde_json::{Map, json};

use crate::captions::captions_at;
use crate::catalogue::KINDS;
use crate::error::{Error, Result};
use crate::geometry::{Octant, bearing_deg, floor_distance_m};
use crate::question_template::Category;
use crate::questions::{GroundTruth, RoomQuestion, answer_classes};
use crate::rationale::{Rationale, derive_rationale};
use crate::render::Renderer;
pub use crate::world::path::FRAMES;
use crate::world::path::Path;

/// Width and height of a frame in pixels.
pub const VIEW_SIZE: (usize, usize) = (112, 84);

/// The categories that four frames settle.
pub const VIEW_CATEGORIES: [Category; 3] =
    [Category::LandmarkPosition, Category::ActionGeneration, Category::ProgressEvaluation];

/// The place of an image in a text.
pub const IMAGE: &str = "<image>";

/// The field of a record with the prompt in which captions stand for the images.
pub const PERCEIVED: &str = "perceived";

/// Options about a direction.
const OPTIONS: usize = 4;

/// Least angle between the views of questions about a route, so that each can face another object.
const HEADINGS_APART_DEG: f64 = 25.0;

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

/// A question about a room seen in a few frames.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewQuestion {
    /// The frames.
    pub views: Views,
    /// The question.
    pub question: RoomQuestion,
    /// The reasoning from truthful captions of the frames to the correct answer.
    pub rationale: Rationale,
}

/// Number of object classes.
pub const fn classes() -> usize {
    KINDS.len()
}

/// Room `index` of `seed`, seen from a random path.
pub fn views(seed: u64, index: u64) -> Views {
    let scene = (0..).find_map(|round: u64| {
        let path = Path::draw(&mut Rng::new(&[seed, index, 30, round]));
        let furnish = |attempt| path.furnish(&mut Rng::new(&[seed, index, 31, round, attempt]));
        (0..ATTEMPTS).find_map(furnish)
    });
    // The search ends with a room.
    let scene = scene.unwrap_or_else(|| crate::world::draw(&[seed, index]));
    Views { scene, seed: texture_seed(seed, index) }
}

/// Question `index` of `seed`, cycling through the categories. `None` without categories or for one that a few frames do
/// not settle.
pub fn view_question(seed: u64, index: u64, categories: &[Category]) -> Option<ViewQuestion> {
    let turn = index.checked_rem(categories.len() as u64)?;
    let category = *categories.get(turn as usize)?;
    if !VIEW_CATEGORIES.contains(&category) {
        return None;
    }
    (0..).find_map(|round: u64| {
        let (path, octants, class) = plan(category, &mut Rng::new(&[seed, index, 32, round]));
        (0..ATTEMPTS).find_map(|attempt| {
            let mut rng = Rng::new(&[seed, index, 33, round, attempt]);
            let scene = path.furnish(&mut rng)?;
            let frames: Vec<usize> = (0..scene.camera.len()).collect();
            let truth = GroundTruth::of_frames(&scene, &frames, &octants);
            let (template, question) = truth.question(category, class, &mut rng)?;
            let rationale = derive_rationale(&template, &question.options, truth.trace())?;
            let views = Views { scene, seed: texture_seed(seed, index) };
            Some(ViewQuestion { views, question, rationale })
        })
    })
}

/// A path, the possible directions, and the class of the answer.
fn plan(category: Category, rng: &mut Rng) -> (Path, Vec<Octant>, usize) {
    loop {
        let path = Path::draw(rng);
        let octants = path.seen_octants();
        let about_a_direction = category != Category::ProgressEvaluation;
        match about_a_direction {
            true if octants.len() >= OPTIONS => {
                let octant = octants[rng.below(octants.len())];
                let class = Octant::ALL.iter().position(|other| *other == octant).unwrap_or(0);
                return (path, octants, class);
            }
            false if path.headings_differ(HEADINGS_APART_DEG) => {
                return (path, octants, rng.below(answer_classes(category)));
            }
            _ => {}
        }
    }
}

fn texture_seed(seed: u64, index: u64) -> u64 {
    Rng::new(&[seed, index, 34]).next_u64()
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
        let half_view = (self.scene.horizontal_fov_deg / 2.0).to_radians();
        let focal_px = width as f64 / 2.0 / half_view.tan();
        let sighted = |seen: embodied_r_data::scene::VisibleObject| {
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

/// The questions to write for each split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewCounts {
    /// For training.
    pub train: u64,
    /// For validation.
    pub val: u64,
    /// For testing.
    pub test: u64,
}

/// Writes questions about rooms into `out`: `train_data.json`, `val_data.json`, `test_data.json`, and the frames as PNG
/// files below `frames/`. No room is in two splits.
///
/// # Errors
/// Nothing is requested, a category is not one of [`VIEW_CATEGORIES`], or a file cannot be written.
pub fn write_views(
    out: &FilePath,
    counts: ViewCounts,
    seed: u64,
    categories: &[Category],
    progress: &dyn Progress,
) -> Result<()> {
    let ViewCounts { train, val, test } = counts;
    if train + val + test == 0 {
        return Err(Error::EmptyRequest { field: "questions" });
    }
    if categories.is_empty() {
        return Err(Error::EmptyRequest { field: "categories" });
    }
    if let Some(other) = categories.iter().find(|category| !VIEW_CATEGORIES.contains(category)) {
        return Err(Error::NoViews { category: *other });
    }
    let folder = out.join("frames");
    fs::create_dir_all(&folder).map_err(FileError::io("create", &folder))?;
    progress.start("rendering rooms", Some(train + val + test));
    let mut first = 0;
    for (split, count) in [("train", train), ("val", val), ("test", test)] {
        let questions: Vec<Question> = (first..first + count)
            .into_par_iter()
            .filter_map(|index| {
                let question = view_question(seed, index, categories)?;
                let written = question.write_frames(&folder, index);
                progress.advance(1);
                Some(written.map(|images| question.record(index, &images)))
            })
            .collect::<Result<_>>()?;
        let path = out.join(format!("{split}_data.json"));
        let json = serde_json::to_vec_pretty(&questions)
            .map_err(|fault| FileError::io("write", &path)(fault.into()))?;
        write_atomic(&path, &json)?;
        first += count;
    }
    progress.finish();
    Ok(())
}

impl ViewQuestion {
    /// The frames as files, named relative to the folder above `folder`.
    fn write_frames(&self, folder: &FilePath, index: u64) -> Result<Vec<PathBuf>> {
        let write = |frame: usize| {
            let name = format!("room_{index:05}_{frame}.png");
            let path = folder.join(&name);
            write_png(&path, &self.views.render(frame))?;
            Ok(FilePath::new("frames").join(name))
        };
        (0..self.views.frames()).map(write).collect()
    }

    /// The question with its images, and in [`PERCEIVED`] with captions in their places.
    #[must_use]
    pub fn record(&self, index: u64, images: &[PathBuf]) -> Question {
        let images: Vec<_> = images.iter().map(|path| path.to_string_lossy()).collect();
        let perceived = perceived_prompt(&self.views.captions(), &self.question.text);
        let extra = [("images", json!(images)), (PERCEIVED, json!(perceived))];
        Question {
            question_id: json!(index),
            question_category: self.question.category.name().to_owned(),
            question: perceived_prompt(&self.views.with_images(), &self.question.text),
            answer: self.question.answer.to_string(),
            scene_name: Some(format!("room_{index:05}")),
            extra: extra
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect::<Map<_, _>>(),
            ..Question::default()
        }
    }
}

/// Writes the pixels of a frame as a PNG file.
///
/// # Errors
/// The file cannot be written.
pub fn write_png(path: &FilePath, rgb: &[u8]) -> Result<()> {
    let (width, height) = VIEW_SIZE;
    Ok(write_atomic_with(path, |out| {
        PngEncoder::new_with_quality(out, CompressionType::Fast, FilterType::Adaptive)
            .write_image(rgb, width as u32, height as u32, ExtendedColorType::Rgb8)
            .map_err(|fault| FileError::io("write", path)(std::io::Error::other(fault)))
    })?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn timing() {
        let t = std::time::Instant::now();
        for i in 0..60 {
            std::hint::black_box(view_question(1, i, &VIEW_CATEGORIES).unwrap());
        }
        eprintln!("questions {:?} each", t.elapsed() / 60);
        let t = std::time::Instant::now();
        for i in 0..60 {
            std::hint::black_box(views(1, i));
        }
        eprintln!("views {:?} each", t.elapsed() / 60);
        let v = views(1, 3);
        let t = std::time::Instant::now();
        for f in 0..4 {
            std::hint::black_box(v.render(f));
        }
        eprintln!("render {:?} each", t.elapsed() / 4);
        for i in 0..3 {
            let q = view_question(1, i, &VIEW_CATEGORIES).unwrap();
            let r = q.record(i, &[]);
            eprintln!("{}\n{}\n{}", r.question, r.extra["perceived"], q.rationale.completion());
            for f in 0..4 {
                write_png(FilePath::new(&format!("/tmp/v{i}_{f}.png")), &q.views.render(f))
                    .unwrap();
                eprintln!("{:?}", q.views.sighted(f));
            }
        }
        let _: HashMap<u8, u8> = HashMap::new();
        eprintln!("{:?}", crate::corpus::views_document(&v, 1, 2));
    }
}

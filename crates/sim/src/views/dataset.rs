//! Questions about frames as files.

use std::fs;
use std::path::{Path, PathBuf};

use embodied_r_data::Progress;
use embodied_r_data::prompts::{CaptionStyle, FrameText, perceived_prompt};
use embodied_r_data::question::Question;
use embodied_r_files::{Error as FileError, write_atomic, write_atomic_with};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use rayon::prelude::*;
use serde_json::{Map, json};

use super::{
    PointingQuestion, VIEW_CATEGORIES, VIEW_SIZE, ViewAnswer, ViewQuestion, Views,
    pointing_question, view_question,
};
use crate::error::{Error, Result};
use crate::question_template::Category;

/// The field of a record with the prompt in which captions stand for the images.
pub const PERCEIVED: &str = "perceived";

/// The field of a record with the reasoning of a worked example.
pub const RATIONALE: &str = "rationale";

/// The prompt of a question with captions: that of a question about captions itself, or the field [`PERCEIVED`] of one
/// about frames.
#[must_use]
pub fn perceived(question: &Question) -> &str {
    let captioned = question.extra.get(PERCEIVED).and_then(|prompt| prompt.as_str());
    captioned.unwrap_or(&question.question)
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

/// The kinds of questions to write, in turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewKinds {
    /// Multiple-choice questions about all frames.
    Choices(Vec<Category>),
    /// Questions about where an object is in a frame.
    Pointing(Vec<ViewAnswer>),
}

impl ViewKinds {
    /// # Errors
    /// There are none, or a category is not one of [`VIEW_CATEGORIES`].
    fn check(&self) -> Result<()> {
        match self {
            Self::Choices(categories) if categories.is_empty() => {
                Err(Error::EmptyRequest { field: "categories" })
            }
            Self::Pointing(answers) if answers.is_empty() => {
                Err(Error::EmptyRequest { field: "answers" })
            }
            Self::Choices(categories) => {
                let other = categories.iter().find(|it| !VIEW_CATEGORIES.contains(it));
                other.map_or(Ok(()), |category| Err(Error::NoViews { category: *category }))
            }
            Self::Pointing(_) => Ok(()),
        }
    }

    /// Question `index`, whose frames are written below `folder`.
    fn question(&self, seed: u64, index: u64, folder: &Path) -> Option<Result<Question>> {
        match self {
            Self::Choices(categories) => {
                let question = view_question(seed, index, categories)?;
                let written = question.write_frames(folder, index);
                Some(written.map(|images| question.record(index, &images)))
            }
            Self::Pointing(answers) => {
                let question = pointing_question(seed, index, answers)?;
                let written = write_frame(&question.views, question.frame, folder, index);
                Some(written.map(|image| question.record(index, &image)))
            }
        }
    }
}

/// Writes questions about rooms into `out`: `train_data.json`, `val_data.json`, `test_data.json`, and the frames as PNG
/// files below `frames/`. No room is in two splits.
///
/// # Errors
/// Nothing is requested, a category is not one of [`VIEW_CATEGORIES`], or a file cannot be written.
pub fn write_views(
    out: &Path,
    counts: ViewCounts,
    seed: u64,
    kinds: &ViewKinds,
    progress: &dyn Progress,
) -> Result<()> {
    let ViewCounts { train, val, test } = counts;
    if train + val + test == 0 {
        return Err(Error::EmptyRequest { field: "questions" });
    }
    kinds.check()?;
    let folder = out.join("frames");
    fs::create_dir_all(&folder).map_err(FileError::io("create", &folder))?;
    progress.start("rendering rooms", Some(train + val + test));
    let mut first = 0;
    for (split, count) in [("train", train), ("val", val), ("test", test)] {
        let questions: Vec<Question> = (first..first + count)
            .into_par_iter()
            .filter_map(|index| {
                let question = kinds.question(seed, index, &folder);
                progress.advance(1);
                question
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
    fn write_frames(&self, folder: &Path, index: u64) -> Result<Vec<PathBuf>> {
        let frames = 0..self.views.frames();
        frames.map(|frame| write_frame(&self.views, frame, folder, index)).collect()
    }

    /// The question with its images, and in [`PERCEIVED`] with captions in their places.
    #[must_use]
    pub fn record(&self, index: u64, images: &[PathBuf]) -> Question {
        let images: Vec<_> = images.iter().map(|path| path.to_string_lossy()).collect();
        let prompt = |frames: &[FrameText]| {
            perceived_prompt(frames, &self.question.text, CaptionStyle::Bearings)
        };
        let perceived = prompt(&self.views.captions());
        let extra = [("images", json!(images)), (PERCEIVED, json!(perceived))];
        Question {
            question_id: json!(index),
            question_category: self.question.category.name().to_owned(),
            question: prompt(&self.views.with_images()),
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

impl PointingQuestion {
    /// The question with its image, and in [`PERCEIVED`] with the caption in its place.
    #[must_use]
    pub fn record(&self, index: u64, image: &Path) -> Question {
        let of = |frames: Vec<FrameText>| {
            let frame: Vec<FrameText> = frames.into_iter().skip(self.frame).take(1).collect();
            perceived_prompt(&frame, &self.text, CaptionStyle::Bearings)
        };
        let extra = [
            ("images", json!([image.to_string_lossy()])),
            (PERCEIVED, json!(of(self.views.captions()))),
            ("answer_type", json!(self.answer_type.name())),
            (RATIONALE, json!(self.rationale)),
        ];
        Question {
            question_id: json!(index),
            question_category: self.answer_type.name().to_owned(),
            question: of(self.views.with_images()),
            answer: self.answer.clone(),
            scene_name: Some(format!("room_{index:05}")),
            extra: extra.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
            ..Question::default()
        }
    }
}

/// A frame as a file, named relative to the folder above `folder`.
fn write_frame(views: &Views, frame: usize, folder: &Path, index: u64) -> Result<PathBuf> {
    let name = format!("room_{index:05}_{frame}.png");
    write_png(&folder.join(&name), &views.render(frame))?;
    Ok(Path::new("frames").join(name))
}

/// Writes the pixels of a frame as a PNG file.
///
/// # Errors
/// The file cannot be written.
pub fn write_png(path: &Path, rgb: &[u8]) -> Result<()> {
    write_png_of_size(path, rgb, VIEW_SIZE)
}

/// Writes rows of red, green and blue bytes as a PNG file of `width` × `height` pixels.
pub(crate) fn write_png_of_size(
    path: &Path,
    rgb: &[u8],
    (width, height): (usize, usize),
) -> Result<()> {
    Ok(write_atomic_with(path, |out| {
        PngEncoder::new_with_quality(out, CompressionType::Fast, FilterType::Adaptive)
            .write_image(rgb, width as u32, height as u32, ExtendedColorType::Rgb8)
            .map_err(|fault| FileError::io("write", path)(std::io::Error::other(fault)))
    })?)
}

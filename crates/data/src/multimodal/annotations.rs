//! A benchmark's annotations in its own layout, as questions with images and videos.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::SampleSet;
use super::build::keep_sources;
use super::media::{self, Folder, Source};
use super::options::{MediaUse, ReadOptions};
use super::row::Row;
use super::sample::{Media, MediaFile, Message, Part, Role, Sample, Video};
use crate::container;
use crate::error::{Error, Result};
use crate::question::{Question, VIDEOS};
use crate::record::{RecordPlace, json_type, scalar_text};
use crate::row::file_name;
use crate::video_file::{VideoFolders, find_video};

/// One record of a benchmark's annotation files.
#[derive(Debug, Clone, Copy)]
pub struct Annotation<'a> {
    row: Row<'a>,
    /// Its 0-based row over all files.
    number: usize,
}

/// What a benchmark's record asks.
#[derive(Debug, Clone, PartialEq)]
pub struct AnnotatedQuestion {
    /// The data set's own identifier, or the row.
    pub id: Value,
    /// The benchmark's category.
    pub category: String,
    /// The user message. An image is named by its column, and by its place if that is a list.
    pub content: Vec<Content>,
    /// The reference answer.
    pub answer: String,
    /// The path of the video that [`Content::Video`] shows, below the benchmark's folder.
    pub video: Option<String>,
    /// Further columns, for scorers.
    pub columns: Map<String, Value>,
}

/// A piece of a user message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// An image of a column; of one that is not a list, the image 0.
    Image(&'static str, usize),
    /// The question's video.
    Video,
}

impl<'a> Annotation<'a> {
    /// The annotation file.
    pub fn file(&self) -> &'a Path {
        self.row.record.path
    }

    /// The first of these columns that has a string or a number, or else the row over all files, from 0.
    pub fn id(&self, columns: &[&str]) -> Value {
        let is_id = |value: &&Value| value.is_string() || value.is_number();
        let found = columns.iter().find_map(|name| self.value(name).filter(is_id));
        found.cloned().unwrap_or_else(|| self.number.into())
    }

    /// A value that is there and not null.
    pub fn value(&self, column: &str) -> Option<&'a Value> {
        self.row.get(column)
    }

    /// A string.
    ///
    /// # Errors
    /// It is missing or of another type.
    pub fn text(&self, column: &str) -> Result<&'a str> {
        self.row.optional_text(column)?.ok_or_else(|| self.error(column, "is missing"))
    }

    /// A string or a number, as text.
    ///
    /// # Errors
    /// It is missing or of another type.
    pub fn scalar(&self, column: &str) -> Result<String> {
        self.row.optional_scalar(column)?.ok_or_else(|| self.error(column, "is missing"))
    }

    /// A list of strings or numbers, as texts.
    ///
    /// # Errors
    /// It is missing or of another type.
    pub fn texts(&self, column: &str) -> Result<Vec<String>> {
        let value = self.value(column).ok_or_else(|| self.error(column, "is missing"))?;
        let texts = value.as_array().and_then(|values| values.iter().map(scalar_text).collect());
        texts.ok_or_else(|| {
            self.error(column, format!("must be a list of strings, not {}", json_type(value)))
        })
    }

    /// Number of images in a column: a list of them, or one.
    pub fn image_count(&self, column: &'static str) -> usize {
        match self.value(column) {
            Some(Value::Array(images)) => images.len(),
            Some(_) => 1,
            None => usize::from(self.row.bytes.contains_key(column)),
        }
    }

    /// All images of a column, as content; nulls in a list are none.
    pub fn images(&self, column: &'static str) -> Vec<Content> {
        let is_there = |index: &usize| match self.value(column) {
            Some(Value::Array(images)) => {
                !images[*index].is_null()
                    || self.row.bytes.contains_key(&format!("{column}[{index}]"))
            }
            _ => true,
        };
        let indices = (0..self.image_count(column)).filter(is_there);
        indices.map(|index| Content::Image(column, index)).collect()
    }

    /// The bytes of an image column: of itself, or of its `bytes`.
    pub fn bytes(&self, column: &str) -> Option<&'a [u8]> {
        let of = |name: &str| self.row.bytes.get(name).map(AsRef::as_ref);
        of(column).or_else(|| of(&format!("{column}.bytes")))
    }

    /// The error that a column is wrong.
    pub fn error(&self, column: &str, reason: impl Into<String>) -> Error {
        self.row.record.field_error(column, reason)
    }
}

/// The columns of a parquet table, or of the first record of another annotation file.
///
/// # Errors
/// The file cannot be read, or has no records.
pub fn columns(path: &Path) -> Result<Vec<String>> {
    container::columns(path)
}

/// Reads the first `limit` records of the annotation files of a benchmark in `folder`; `question` says what each one asks.
///
/// # Errors
/// A file cannot be read; `question` fails; an image or a video is missing and bad records are not to be skipped.
pub fn read_annotations(
    files: &[PathBuf],
    folder: &Path,
    options: &ReadOptions,
    limit: usize,
    question: impl Fn(&Annotation<'_>) -> Result<AnnotatedQuestion>,
) -> Result<SampleSet> {
    let mut set = SampleSet::empty(files.to_vec());
    let mut number = 0;
    for path in files {
        let shared: Arc<Path> = path.as_path().into();
        container::for_each(path, |index, raw| {
            if number >= limit {
                return Ok(());
            }
            let (fields, bytes) = raw.into_fields(path, index)?;
            let row = Row::new(path, index, &fields, &bytes);
            let annotated = question(&Annotation { row, number })?;
            number += 1;
            let place = RecordPlace { path: shared.clone(), index };
            match sample(&row, folder, options, annotated) {
                Ok(sample) => {
                    set.samples.push(sample);
                    set.places.push(place);
                }
                Err(error) if options.skip_bad_records => {
                    set.skipped.push((place, error.to_string()));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
    }
    Ok(set)
}

fn sample(
    row: &Row<'_>,
    folder: &Path,
    options: &ReadOptions,
    annotated: AnnotatedQuestion,
) -> Result<Sample> {
    let AnnotatedQuestion { id, category, content, answer, video, columns } = annotated;
    let mut question = Question {
        question_id: id,
        question_category: category,
        question: text(&content),
        answer,
        extra: columns,
        ..Question::default()
    };
    if let Some(path) = &video {
        let name = path.rsplit('/').next().unwrap_or_default();
        if !file_name(name) {
            let reason =
                format!("`{path}` must be the path of a video below the benchmark's folder");
            return Err(row.record.field_error("video", reason));
        }
        question.video_id = Some(name.to_owned());
        question.videos = Some(path.clone());
    }
    if options.media == MediaUse::Ignored {
        return Ok(Sample::from_text(question));
    }
    let sources = content
        .iter()
        .filter_map(|part| match part {
            Content::Image(column, index) => Some(source(row, column, *index)),
            Content::Text(_) | Content::Video => None,
        })
        .collect::<Result<Vec<_>>>()?;
    let beside = Folder { image_dir: options.image_dir.as_deref(), beside: folder };
    let media = Media {
        images: media::images(row, &sources, beside)?,
        videos: video
            .map(|path| found_video(row, folder, options, &path))
            .transpose()?
            .into_iter()
            .collect(),
    };
    let parts = content.into_iter().filter_map(|part| match part {
        Content::Text(text) if text.is_empty() => None,
        Content::Text(text) => Some(Part::Text(text)),
        Content::Image(..) => Some(Part::Image),
        Content::Video => Some(Part::Video),
    });
    let messages = vec![Message { role: Role::User, content: parts.collect() }];
    keep_sources(&mut question, &sources, &[], &Media { videos: Vec::new(), ..media.clone() });
    Ok(Sample { question, messages, media, captioned: None })
}

/// The texts of a message.
fn text(content: &[Content]) -> String {
    let texts = content.iter().filter_map(|part| match part {
        Content::Text(text) => Some(text.as_str()),
        Content::Image(..) | Content::Video => None,
    });
    texts.collect::<String>().trim().to_owned()
}

/// The image `index` of a column.
fn source<'a>(row: &Row<'a>, column: &'static str, index: usize) -> Result<Source<'a>> {
    let missing = || row.record.field_error(column, format!("has no image {index}"));
    media::sources(row, &[column])?.into_iter().nth(index).ok_or_else(missing)
}

fn found_video(row: &Row<'_>, folder: &Path, options: &ReadOptions, path: &str) -> Result<Video> {
    let folders = VideoFolders {
        video_dir: options.video_dir.as_deref(),
        image_dir: options.image_dir.as_deref(),
        beside: folder,
    };
    let name = path.rsplit('/').next();
    match find_video(Some(path), name, folders) {
        Some(path) => Ok(Video::File(MediaFile::Path(path))),
        None => {
            let reason = format!(
                "the video `{path}` does not exist in `{}`; pass the folder of the videos with `--video-dir`",
                folder.display()
            );
            Err(row.record.field_error(VIDEOS, reason))
        }
    }
}

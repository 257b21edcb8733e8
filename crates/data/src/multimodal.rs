//! Questions with images and videos, in the formats of other trainers.
//!
//! [`read_samples`] detects the format by content, never by file name. A file is a JSON list, JSON lines or a parquet
//! table; a record is in one of these formats, after [`Columns`] has renamed its columns:
//!
//! | format | fields |
//! |---|---|
//! | [`SampleFormat::Official`] | `Question_id`, `question`, `answer`, `images`, `videos` |
//! | [`SampleFormat::HuggingFace`] | `problem` or `question`, `answer` or `solution`, `images` or `videos` |
//! | [`SampleFormat::Messages`] | `messages`, `images`, `videos`, `solution` |
//! | [`SampleFormat::Verl`] | `prompt`, `images`, `videos`, `reward_model` |
//! | [`SampleFormat::Trl`] | `prompt`, `image` or `images`, `solution` or `answer`, `completion` |
//! | [`SampleFormat::Llava`] | `conversations`, `image` or `video` |
//! | [`SampleFormat::VideoR1`] | `problem`, `path`, `data_type`, `options`, `solution`, `process` |
//!
//! In text, `<image>` and `<video>` mark the places of images and videos. A kind that has no marker at all comes before
//! the text of the first user message.
//!
//! ```
//! use embodied_r_data::multimodal::{Part, ReadOptions, read_samples};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("train.jsonl");
//! std::fs::write(folder.path().join("a.png"), b"image")?;
//! std::fs::write(&path, r#"{"problem": "<image>How many?", "answer": 3, "images": ["a.png"]}"#)?;
//! let set = read_samples(&path, &ReadOptions::default())?;
//! let sample = &set.samples[0];
//! assert_eq!(sample.messages[0].content, [Part::Image, Part::Text("How many?".to_owned())]);
//! assert_eq!((sample.question.question.as_str(), sample.question.answer.as_str()), ("How many?", "3"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod annotations;
mod build;
mod conversation;
mod format;
mod hugging_face;
mod llava;
mod markers;
mod media;
mod messages;
mod official;
mod options;
mod prompt;
mod row;
mod sample;
mod to_record;
mod video_r1;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::container::{self, Raw};
use crate::data_files::DataFiles;
use crate::duplicates::reject_duplicates;
use crate::error::{Error, Result};
use crate::question::Question;
use crate::record::{RecordPlace, column_names};
use build::Context;
pub use format::SampleFormat;
use media::Folder;
pub use options::{Columns, MediaUse, ReadOptions};
use row::Row;
pub use sample::{Media, MediaFile, Message, Part, Role, Sample, Video};

/// The samples of one or more files.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSet {
    /// The files.
    pub files: Vec<PathBuf>,
    /// The format of the first file's records; each file may have another.
    pub format: SampleFormat,
    /// The samples, in file order.
    pub samples: Vec<Sample>,
    /// Where each sample's record is.
    pub places: Vec<RecordPlace>,
    /// The records left out as bad ones: place and error.
    pub skipped: Vec<(RecordPlace, String)>,
}

impl SampleSet {
    /// No samples yet of these files.
    pub fn empty(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            format: SampleFormat::Official,
            samples: Vec::new(),
            places: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Reads the samples of all files.
    ///
    /// # Errors
    /// Those of [`DataFiles::files`] and [`read_samples`].
    pub fn read(data: &DataFiles, options: &ReadOptions) -> Result<Self> {
        let mut all = Self::empty(Vec::new());
        for set in data.read(|file| read_samples(file, options))? {
            if all.files.is_empty() {
                all.format = set.format;
            }
            all.files.extend(set.files);
            all.samples.extend(set.samples);
            all.places.extend(set.places);
            all.skipped.extend(set.skipped);
        }
        Ok(all)
    }

    /// The questions as text.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.samples.iter().map(|sample| &sample.question)
    }

    /// Checks that no question occurs twice.
    ///
    /// # Errors
    /// [`Error::DuplicateQuestion`] with the two records.
    pub fn reject_duplicates(&self) -> Result<()> {
        reject_duplicates(&self.places, self.questions())
    }
}

/// Reads questions with images and videos.
///
/// Files are checked to exist, not to be images or videos. Fields that are null are absent.
///
/// # Errors
/// The file cannot be read, is empty or a folder, or has an unknown format. A record is bad: a field is missing or has
/// the wrong type, a file is missing or not a file, or markers do not match; with
/// [`skip_bad_records`](ReadOptions::skip_bad_records) only if all records are bad. Errors name the file, the record
/// (from 1; in JSON lines, its line) and the field.
pub fn read_samples(path: &Path, options: &ReadOptions) -> Result<SampleSet> {
    let context = context(path, options);
    let mut set = SampleSet::empty(vec![path.into()]);
    let shared: Arc<Path> = path.into();
    let (mut format, mut first_bad) = (None, None);
    let mut renames = options.columns.check();
    container::for_each(path, |index, raw| {
        let read = match raw.into_fields(path, index) {
            Err(error) => Err(error),
            Ok((mut fields, mut bytes)) => {
                renames.see(&fields);
                options.columns.rename(&mut fields, &mut bytes);
                let format = match format {
                    Some(format) => format,
                    // That of the first record that is an object. An unknown one is an error of the file.
                    None => *format.insert(detect(path, &fields)?),
                };
                sample(&Row::new(path, index, &fields, &bytes), format, context)
            }
        };
        let place = RecordPlace { path: shared.clone(), index };
        match read {
            Ok(sample) => {
                set.samples.push(sample);
                set.places.push(place);
            }
            Err(error) if options.skip_bad_records => {
                set.skipped.push((place, error.to_string()));
                first_bad.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    renames.finish(path)?;
    match (format, first_bad) {
        (_, Some(error)) if set.samples.is_empty() => Err(error),
        (Some(format), _) => Ok(SampleSet { format, ..set }),
        (None, _) => Err(Error::EmptyQuestionFile { path: path.into() }),
    }
}

/// The columns of the file at `path` that rewards do not get: those with binary values, which are null in
/// [`Question::extra`], unless a format reads them, as images.
///
/// # Errors
/// The file cannot be read.
pub fn left_out_columns(path: &Path, columns: &Columns) -> Result<Vec<String>> {
    let binary = container::binary_columns(path)?;
    Ok(binary.into_iter().filter(|name| !columns.uses(name)).collect())
}

/// The sample of a question that [`read_question_set`](crate::read_question_set) has read, with its images and its video.
///
/// # Errors
/// A file is missing or not a file, or markers do not match.
pub fn sample_of_question(
    question: &Question,
    place: &RecordPlace,
    options: &ReadOptions,
) -> Result<Sample> {
    let RecordPlace { path, index } = place;
    let (path, index) = (path.as_ref(), *index);
    let json_error = |source| Error::Json { path: path.into(), source };
    let record = serde_json::to_value(question).map_err(json_error)?;
    let (fields, bytes) = Raw::Json(record).into_fields(path, index)?;
    official::read(&Row::new(path, index, &fields, &bytes), context(path, options))
}

/// Where the media of the file at `path` are.
fn context<'a>(path: &'a Path, options: &'a ReadOptions) -> Context<'a> {
    let beside = path.parent().unwrap_or(Path::new(""));
    Context { options, folder: Folder { image_dir: options.image_dir.as_deref(), beside } }
}

/// The format of the first record.
fn detect(path: &Path, fields: &Map<String, Value>) -> Result<SampleFormat> {
    SampleFormat::of(fields).ok_or_else(|| {
        let needed = "`Question_id` and `question`, `problem`, `messages`, `prompt` or `conversations`, maybe under \
                      another name (`--columns question=NAME`)";
        Error::UnknownFormat { path: path.into(), needed, found: column_names(fields) }
    })
}

/// A record as a sample.
fn sample(row: &Row<'_>, format: SampleFormat, context: Context<'_>) -> Result<Sample> {
    match format {
        SampleFormat::Official => official::read(row, context),
        SampleFormat::HuggingFace => hugging_face::read(row, context),
        SampleFormat::Messages => messages::read(row, context),
        SampleFormat::Verl => prompt::read_verl(row, context),
        SampleFormat::Trl => prompt::read_trl(row, context),
        SampleFormat::Llava => llava::read(row, context),
        SampleFormat::VideoR1 => video_r1::read(row, context),
    }
}

#[cfg(test)]
mod tests;

//! Reads question files in the official format, EgoSchema's and MVBench's.
//!
//! The format is detected from the fields of the first record, not from the file name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::container::for_each;
use crate::data_files::DataFiles;
use crate::duplicates::reject_duplicates;
use crate::error::{Error, Result};
use crate::question::Question;
use crate::record::{QUESTION_ID, Record, RecordPlace, column_names};
use crate::{egoschema, mvbench};

/// The format of a question file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionFormat {
    /// The official JSON: `Question_id`, `question` and so on.
    Official,
    /// EgoSchema: `q_uid`, `question`, `option 0` to `option 4`, with answers in a separate file.
    EgoSchema,
    /// MVBench: `video`, `question`, `candidates`, `answer`.
    MvBench,
    /// A benchmark's own layout, read by [`annotations`](crate::multimodal::annotations).
    Benchmark,
}

impl QuestionFormat {
    /// The format of a file by its first record.
    fn of(path: &Path, fields: &Map<String, Value>) -> Result<Self> {
        let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
        if has(QUESTION_ID) {
            Ok(Self::Official)
        } else if has(egoschema::ID) {
            Ok(Self::EgoSchema)
        } else if has(mvbench::CANDIDATES) {
            Ok(Self::MvBench)
        } else {
            let needed =
                "`Question_id` and `question`, EgoSchema's `q_uid` or MVBench's `candidates`";
            let found = column_names(fields);
            Err(Error::UnknownFormat { path: path.into(), needed, found })
        }
    }
}

/// The questions of one or more files.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionSet {
    /// The files, also if a folder was given.
    pub files: Vec<PathBuf>,
    /// Their format.
    pub format: QuestionFormat,
    /// The questions in the official format, in file order.
    pub questions: Vec<Question>,
    /// Where each question's record is.
    pub places: Vec<RecordPlace>,
    /// Number of skipped records without a published answer.
    pub unanswered: usize,
}

impl QuestionSet {
    /// Reads the questions of all files; `answers` is as for [`read_question_set`].
    ///
    /// # Errors
    /// Those of [`DataFiles::files`] and [`read_question_set`], or the files have different formats.
    pub fn read(data: &DataFiles, answers: Option<&Path>) -> Result<Self> {
        let mut all = Self {
            files: Vec::new(),
            format: QuestionFormat::Official,
            questions: Vec::new(),
            places: Vec::new(),
            unanswered: 0,
        };
        for set in data.read(|file| read_question_set(file, answers))? {
            match (all.files.first(), set.files.first()) {
                (None, _) => all.format = set.format,
                (Some(first), Some(second)) if all.format != set.format => {
                    let (first, second) = (first.clone(), second.clone());
                    return Err(Error::DifferentFormats { first, second });
                }
                _ => {}
            }
            all.files.extend(set.files);
            all.questions.extend(set.questions);
            all.places.extend(set.places);
            all.unanswered += set.unanswered;
        }
        Ok(all)
    }

    /// Checks that no question occurs twice.
    ///
    /// # Errors
    /// [`Error::DuplicateQuestion`] with the two records.
    pub fn reject_duplicates(&self) -> Result<()> {
        // Other formats have no ids that could repeat, or have been checked.
        match self.format {
            QuestionFormat::Official | QuestionFormat::Benchmark => {
                reject_duplicates(&self.places, self.questions.iter())
            }
            QuestionFormat::EgoSchema | QuestionFormat::MvBench => Ok(()),
        }
    }

    /// Whether the questions are in a benchmark's own format, without captions of their videos.
    pub fn is_raw(&self) -> bool {
        self.format != QuestionFormat::Official
    }
}

/// Reads questions in any [`QuestionFormat`] from a file: a JSON list, JSON lines or a parquet table.
///
/// `answers` is EgoSchema's answer file, by default `subset_answers.json` next to the questions.
/// Questions without an answer are skipped and counted.
///
/// # Errors
/// The file cannot be read or has an unknown format; a field is missing, has the wrong type or is
/// out of range (the error names the record); an id is duplicated; `answers` is given for another
/// format.
pub fn read_question_set(path: &Path, answers: Option<&Path>) -> Result<QuestionSet> {
    let (mut format, mut records) = (None, Vec::new());
    let shared: Arc<Path> = path.into();
    let place = |index| RecordPlace { path: shared.clone(), index };
    let (mut questions, mut places) = (Vec::new(), Vec::new());
    for_each(path, |index, raw| {
        let (fields, _) = raw.into_fields(path, index)?;
        let format = match format {
            Some(format) => format,
            // That of the first record.
            None => *format.insert(QuestionFormat::of(path, &fields)?),
        };
        if format == QuestionFormat::Official {
            let record = Record { path, index, fields: &fields };
            questions.push(Question::from_record(&record)?);
            places.push(place(index));
        } else {
            records.push((index, fields));
        }
        Ok(())
    })?;
    let format = format.unwrap_or(QuestionFormat::Official);
    if answers.is_some() && format != QuestionFormat::EgoSchema {
        return Err(Error::AnswersUnused { path: path.into() });
    }
    let files = vec![path.to_owned()];
    let read = match format {
        QuestionFormat::Official | QuestionFormat::Benchmark => {
            return Ok(QuestionSet { files, format, questions, places, unanswered: 0 });
        }
        QuestionFormat::EgoSchema => egoschema::read(path, &records, answers)?,
        QuestionFormat::MvBench => mvbench::read(path, &records)?,
    };
    let unanswered = records.len() - read.len();
    let (places, questions) =
        read.into_iter().map(|(index, question)| (place(index), question)).unzip();
    Ok(QuestionSet { files, format, questions, places, unanswered })
}

/// The records of a question file as they are, with their 0-based indices, as in [`QuestionSet::places`]. Binary
/// values are null.
///
/// # Errors
/// The file cannot be read, is empty, or has other records.
pub fn read_records(path: &Path) -> Result<Vec<(usize, Map<String, Value>)>> {
    let mut records = Vec::new();
    for_each(path, |index, raw| {
        records.push((index, raw.into_fields(path, index)?.0));
        Ok(())
    })?;
    Ok(records)
}

#[cfg(test)]
mod tests;

//! Reads question files in the official format, EgoSchema's and MVBench's.
//!
//! The format is detected from the fields of the first record, not from the file name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::duplicates::reject_duplicates;
use crate::error::{Error, Result};
use crate::question::Question;
use crate::text::read_text;
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
}

/// The questions of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionSet {
    /// The file, also if a folder was given.
    pub path: PathBuf,
    /// Its format.
    pub format: QuestionFormat,
    /// The questions in the official format, in file order.
    pub questions: Vec<Question>,
    /// The 0-based index of each question's record in the file.
    pub record_indices: Vec<usize>,
    /// Number of skipped records without a published answer.
    pub unanswered: usize,
}

impl QuestionSet {
    /// Checks that no question occurs twice.
    ///
    /// # Errors
    /// [`Error::DuplicateQuestion`] with the two records.
    pub fn reject_duplicates(&self) -> Result<()> {
        // Other formats have no ids that could repeat, or have been checked.
        match self.format {
            QuestionFormat::Official => reject_duplicates(&self.path, &self.questions),
            QuestionFormat::EgoSchema | QuestionFormat::MvBench => Ok(()),
        }
    }

    /// Whether the questions are in a benchmark's own format, without captions of their videos.
    pub fn is_raw(&self) -> bool {
        self.format != QuestionFormat::Official
    }
}

/// Reads questions in any [`QuestionFormat`] from a file or a benchmark's folder.
///
/// `answers` is EgoSchema's answer file, by default `subset_answers.json` next to the questions.
/// Questions without an answer are skipped and counted.
///
/// # Errors
/// The file cannot be read or has an unknown format; a field is missing, has the wrong type or is
/// out of range (the error names the record); an id is duplicated; `answers` is given for another
/// format.
pub fn read_question_set(path: &Path, answers: Option<&Path>) -> Result<QuestionSet> {
    let path = question_file(path)?;
    let text = read_text(&path)?;
    let source = match serde_json::from_str::<Vec<Question>>(&text) {
        Ok(_) if answers.is_some() => return Err(Error::AnswersUnused { path }),
        Ok(questions) => {
            let record_indices = (0..questions.len()).collect();
            let format = QuestionFormat::Official;
            return Ok(QuestionSet { path, format, questions, record_indices, unanswered: 0 });
        }
        Err(source) => source,
    };
    let values: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let has = |field: &str| values.first().is_some_and(|first| first.get(field).is_some());
    if has(egoschema::ID) {
        return egoschema::read(path, &values, answers);
    }
    match answers {
        Some(_) if has(mvbench::CANDIDATES) => Err(Error::AnswersUnused { path }),
        None if has(mvbench::CANDIDATES) => mvbench::read(path, &values),
        // Unknown formats are reported as invalid official JSON.
        _ => Err(Error::Json { path, source }),
    }
}

/// `path`, or the question file in it if it is a benchmark's folder.
fn question_file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let known = [egoschema::QUESTIONS].into_iter().chain(mvbench::QUESTIONS);
    let found: Vec<PathBuf> =
        known.map(|name| path.join(name)).filter(|file| file.is_file()).collect();
    match found.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(Error::NoQuestions { path: path.to_owned() }),
        [first, second, ..] => {
            Err(Error::SeveralQuestionFiles { first: first.clone(), second: second.clone() })
        }
    }
}

/// One record of a file, with its location for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) path: &'a Path,
    /// Its 0-based index in the file.
    pub(crate) index: usize,
    pub(crate) fields: &'a Map<String, Value>,
}

impl<'a> Record<'a> {
    pub(crate) fn new(path: &'a Path, index: usize, value: &'a Value) -> Result<Self> {
        let fields = value.as_object().ok_or_else(|| Error::Record {
            path: path.into(),
            record: index + 1,
            reason: format!("must be an object, not {}", json_type(value)),
        })?;
        Ok(Self { path, index, fields })
    }

    /// An [`Error::RecordField`] about this record.
    pub(crate) fn field_error(&self, field: &str, reason: impl Into<String>) -> Error {
        let (path, record) = (self.path.into(), self.index + 1);
        Error::RecordField { path, record, field: field.to_owned(), reason: reason.into() }
    }

    /// A non-blank string field.
    pub(crate) fn text(&self, field: &str) -> Result<&'a str> {
        let value = self.fields.get(field).ok_or_else(|| self.field_error(field, "is missing"))?;
        self.text_of(field, value)
    }

    /// `value`, which is or belongs to `field`, as a non-blank string.
    pub(crate) fn text_of(&self, field: &str, value: &'a Value) -> Result<&'a str> {
        match value.as_str().map(str::trim) {
            None => {
                Err(self.field_error(field, format!("must be a string, not {}", json_type(value))))
            }
            Some("") => Err(self.field_error(field, "is empty")),
            Some(text) => Ok(text),
        }
    }

    /// All fields except those in `used` and those named like a field of [`Question`].
    pub(crate) fn extra_fields(&self, used: &[&str]) -> Map<String, Value> {
        const QUESTION_FIELDS: [&str; 8] = [
            "Question_id",
            "video_id",
            "question_category",
            "question",
            "answer",
            "scene_name",
            "videos",
            "content",
        ];
        let is_extra = |name: &&String| {
            !used.contains(&name.as_str()) && !QUESTION_FIELDS.contains(&name.as_str())
        };
        let names = self.fields.keys().filter(is_extra);
        names.map(|name| (name.clone(), self.fields[name].clone())).collect()
    }
}

/// Records the `id` of `record`; an error if an earlier record has it.
pub(crate) fn reject_duplicate<'a>(
    seen: &mut HashMap<&'a str, usize>,
    record: &Record<'_>,
    field: &str,
    id: &'a str,
) -> Result<()> {
    match seen.insert(id, record.index) {
        None => Ok(()),
        Some(first) => {
            Err(record.field_error(field, format!("`{id}` is a duplicate of record {}", first + 1)))
        }
    }
}

/// Question and choices in the other benchmarks' format: `Question: …`, `Choices:`, and one lettered
/// option per line.
pub fn multiple_choice_text(question: &str, options: &[&str]) -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let options: Vec<String> = ('A'..='Z')
        .zip(options)
        .map(|(letter, option)| format!("{letter}. {}", one_line(option)))
        .collect();
    crate::vsi::question_text(question, Some(&options))
}

/// The letter of the option at `index`.
pub(crate) fn letter(index: usize) -> String {
    ('A'..='Z').nth(index).map(String::from).unwrap_or_default()
}

/// The type of a JSON value, for messages.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;

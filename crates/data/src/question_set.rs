//! Files of questions in every form that is read: the official one, EgoSchema's and MVBench's.
//!
//! The forms are told apart by the fields of the first record, not by the file's name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::question::Question;
use crate::{egoschema, mvbench};

/// The form that a file of questions has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The official JSON: `Question_id`, `question` and so on.
    Official,
    /// EgoSchema's: `q_uid`, `question`, `option 0` to `option 4`; answers lie in a file of their
    /// own.
    EgoSchema,
    /// MVBench's: `video`, `question`, `candidates`, `answer`.
    MvBench,
}

/// The questions of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionSet {
    /// The file; where a folder was given, it lies in that.
    pub path: PathBuf,
    /// Its form.
    pub form: Form,
    /// The questions in the official form, in the file's order.
    pub questions: Vec<Question>,
    /// The place of each question's record in the file, from 0.
    pub places: Vec<usize>,
    /// Records that were left out, since nobody published their answers.
    pub unanswered: usize,
}

impl QuestionSet {
    /// Whether the questions are as a benchmark publishes them: about videos that nobody has told
    /// in words yet.
    pub fn is_unperceived(&self) -> bool {
        self.form != Form::Official
    }
}

/// Reads questions in any [`Form`] from a file, or from the folder of a benchmark that holds one.
///
/// `answers` names the file of EgoSchema's answers; without it `subset_answers.json` is looked for
/// beside the questions. Questions that it does not answer are left out and counted.
///
/// # Errors
/// The file cannot be read or is of no known form; a field is missing, of another type or out of
/// range, named with its record; an id comes twice; `answers` is given for another form.
pub fn read_question_set(path: &Path, answers: Option<&Path>) -> Result<QuestionSet> {
    let path = file_in(path)?;
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let source = match serde_json::from_str::<Vec<Question>>(&text) {
        Ok(_) if answers.is_some() => return Err(Error::AnswersUnused { path }),
        Ok(questions) => {
            let places = (0..questions.len()).collect();
            let form = Form::Official;
            return Ok(QuestionSet { path, form, questions, places, unanswered: 0 });
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
        // The first form is the one to explain.
        _ => Err(Error::Json { path, source }),
    }
}

/// `path`, or the questions in it where it is a benchmark's folder.
fn file_in(path: &Path) -> Result<PathBuf> {
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

/// One record of a file, for what is wrong with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) path: &'a Path,
    /// Its place in the file, from 0.
    pub(crate) place: usize,
    pub(crate) fields: &'a Map<String, Value>,
}

impl<'a> Record<'a> {
    pub(crate) fn new(path: &'a Path, place: usize, value: &'a Value) -> Result<Self> {
        let fields = value.as_object().ok_or_else(|| Error::Record {
            path: path.into(),
            record: place + 1,
            fault: format!("is {}, should be an object", kind(value)),
        })?;
        Ok(Self { path, place, fields })
    }

    /// An error about one of its fields.
    pub(crate) fn fault(&self, field: &str, fault: impl Into<String>) -> Error {
        let (path, record) = (self.path.into(), self.place + 1);
        Error::RecordField { path, record, field: field.to_owned(), fault: fault.into() }
    }

    /// A field that holds text other than white space.
    pub(crate) fn text(&self, field: &str) -> Result<&'a str> {
        let value = self.fields.get(field).ok_or_else(|| self.fault(field, "is missing"))?;
        self.text_of(field, value)
    }

    /// `value`, which is or lies in `field`, as text.
    pub(crate) fn text_of(&self, field: &str, value: &'a Value) -> Result<&'a str> {
        match value.as_str().map(str::trim) {
            None => Err(self.fault(field, format!("should be text, but is {}", kind(value)))),
            Some("") => Err(self.fault(field, "is empty")),
            Some(text) => Ok(text),
        }
    }

    /// All fields but those of `taken` and those that a [`Question`] has of its own.
    pub(crate) fn others(&self, taken: &[&str]) -> Map<String, Value> {
        const OWN: [&str; 8] = [
            "Question_id",
            "video_id",
            "question_category",
            "question",
            "answer",
            "scene_name",
            "videos",
            "content",
        ];
        let free =
            |name: &&String| !taken.contains(&name.as_str()) && !OWN.contains(&name.as_str());
        let names = self.fields.keys().filter(free);
        names.map(|name| (name.clone(), self.fields[name].clone())).collect()
    }
}

/// Refuses what two records have in common and may not: remembers `id` as that of `record`.
pub(crate) fn refuse_second<'a>(
    seen: &mut HashMap<&'a str, usize>,
    record: &Record<'_>,
    field: &str,
    id: &'a str,
) -> Result<()> {
    match seen.insert(id, record.place) {
        None => Ok(()),
        Some(first) => {
            Err(record.fault(field, format!("`{id}` is that of record {} too", first + 1)))
        }
    }
}

/// Question and choices as the other benchmarks' are written: `Question: …`, `Choices:`, and one
/// lettered option a line.
pub fn lettered(question: &str, options: &[&str]) -> String {
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

/// What a JSON value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;

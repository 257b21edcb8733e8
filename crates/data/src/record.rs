//! The records of question files, and their values.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The field of a question's identifier.
pub(crate) const QUESTION_ID: &str = "Question_id";

/// What is wrong with a field of a record.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// Where a record is: its file, and its 0-based index there; in JSON lines, that of its line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordPlace {
    /// The file.
    pub path: Arc<Path>,
    /// The index.
    pub index: usize,
}

impl fmt::Display for RecordPlace {
    /// `record 3 of `data.json``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of `{}`", self.index + 1, self.path.display())
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
    /// An [`Error::RecordField`] about this record, with its `Question_id`.
    pub(crate) fn field_error(&self, field: &str, reason: impl Into<String>) -> Error {
        let id = self.fields.get(QUESTION_ID).and_then(scalar_text);
        let id = id.map(|id| format!(" (`{QUESTION_ID}` `{id}`)")).unwrap_or_default();
        Error::RecordField {
            path: self.path.into(),
            record: self.index + 1,
            field: field.to_owned(),
            reason: format!("{}{id}", reason.into()),
        }
    }

    /// The same of a fault.
    pub(crate) fn fault(&self, Fault { field, reason }: Fault) -> Error {
        self.field_error(&field, reason)
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
            QUESTION_ID,
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

/// The letter of the option at `index`.
pub(crate) fn letter(index: usize) -> String {
    ('A'..='Z').nth(index).map(String::from).unwrap_or_default()
}

/// A string or a number as text.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The names of a record's columns, for messages.
pub(crate) fn column_names(fields: &Map<String, Value>) -> String {
    const MAX_NAMES: usize = 40;
    let names: Vec<&str> = fields.keys().map(String::as_str).take(MAX_NAMES).collect();
    names.join("`, `")
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

//! The records of question files in other formats than the official one.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

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

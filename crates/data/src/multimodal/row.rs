//! A record of a file in any format, with its columns under their names here.

use std::path::Path;

use serde_json::{Map, Value};

use super::options::COLUMNS;
use crate::answer::answer_texts;
use crate::error::{Error, Result};
use crate::parquet::Bytes;
use crate::record::{Record, json_type, scalar_text};

/// A reference answer, in tags or not.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// The column that it is in; `None` if it is in none or has a place of its own.
    pub(super) column: Option<&'static str>,
    /// Its texts, of which any counts; none without an answer.
    pub(super) texts: Vec<String>,
}

impl Answer {
    /// The answer, or that of a final assistant's turn without one.
    pub(super) fn or_reply(self, reply: Option<String>) -> Self {
        match (self.column, reply) {
            (None, Some(text)) => Self { column: None, texts: vec![text] },
            _ => self,
        }
    }
}

/// A record with the binary values of a parquet row, by their fields, such as `images[0].bytes`; they are null in
/// [`Record::fields`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) record: Record<'a>,
    pub(super) bytes: &'a Bytes,
}

impl<'a> Row<'a> {
    pub(super) fn new(
        path: &'a Path,
        index: usize,
        fields: &'a Map<String, Value>,
        bytes: &'a Bytes,
    ) -> Self {
        Self { record: Record { path, index, fields }, bytes }
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.record.fields.get(field).filter(|value| !value.is_null())
    }

    /// The one of these fields that is there, with its name.
    ///
    /// # Errors
    /// There are several.
    pub(super) fn one_of(
        &self,
        names: &[&'static str],
    ) -> Result<Option<(&'static str, &'a Value)>> {
        let is_there =
            |&&name: &&&'static str| self.get(name).is_some() || self.bytes.contains_key(name);
        let mut found = names.iter().filter(is_there);
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => Err(self
                .record
                .field_error(first, format!("`{second}` is there too; keep one of them"))),
            (Some(name), None) => {
                Ok(Some((name, self.record.fields.get(*name).unwrap_or(&Value::Null))))
            }
            _ => Ok(None),
        }
    }

    /// A string field that may be absent.
    pub(super) fn optional_text(&self, field: &str) -> Result<Option<&'a str>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.type_error(field, "a string", value)),
        }
    }

    /// A field of a string or a number, as text, that may be absent.
    pub(super) fn optional_scalar(&self, field: &str) -> Result<Option<String>> {
        let text = |value| {
            scalar_text(value).ok_or_else(|| self.type_error(field, "a string or a number", value))
        };
        self.get(field).map(text).transpose()
    }

    /// The first of these columns that is there: a string, a number, or a list of them.
    pub(super) fn answer(&self, names: &[&'static str]) -> Result<Answer> {
        match names.iter().find_map(|&name| Some((name, self.get(name)?))) {
            None => Ok(Answer::default()),
            Some((name, value)) => {
                Ok(Answer { column: Some(name), texts: self.answer_texts(name, value)? })
            }
        }
    }

    /// The texts of the answer `value`, which is or belongs to `field`.
    pub(super) fn answer_texts(&self, field: &str, value: &Value) -> Result<Vec<String>> {
        answer_texts(field, value).map_err(|fault| self.record.fault(fault))
    }

    /// The error that `field` is missing.
    pub(super) fn missing(&self, field: &str) -> Error {
        let known = COLUMNS.contains(&field);
        let hint = if known {
            format!("; is it under another name? `--columns {field}=NAME`")
        } else {
            String::new()
        };
        self.record.field_error(field, format!("is missing{hint}"))
    }

    /// The error that `field` has another type.
    pub(super) fn type_error(&self, field: &str, expected: &str, value: &Value) -> Error {
        let found = match self.bytes.contains_key(field) {
            true => "binary",
            false => json_type(value),
        };
        self.record.field_error(field, format!("must be {expected}, not {found}"))
    }

    /// An [`Error::Record`] about this record.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        let (path, record) = (self.record.path.into(), self.record.index + 1);
        Error::Record { path, record, reason: reason.into() }
    }
}

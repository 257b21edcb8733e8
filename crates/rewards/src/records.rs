//! Reads saved outputs: a JSON list, or JSONL with one record per line.
//!
//! The container and the record format are detected from the content, not from the file name.

use std::borrow::Cow;
use std::path::Path;

use embodied_r_files::read_text;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One JSON object of a file, with its location for messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    location: String,
    fields: Map<String, Value>,
}

/// Reads all records of a file: the objects of a JSON list, or of the non-blank lines of JSONL.
///
/// # Errors
/// The file cannot be read, is not JSON, contains anything but objects, or is empty.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let text = read_text(path)?;
    let records =
        if text.trim_start().starts_with('[') { list(path, &text) } else { lines(path, &text) }?;
    match records.is_empty() {
        true => Err(Error::NoRecords { path: path.into() }),
        false => Ok(records),
    }
}

fn list(path: &Path, text: &str) -> Result<Vec<Record>> {
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| Error::Json {
        location: format!("`{}`", path.display()),
        reason: error.to_string(),
    })?;
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            Record::of_value(format!("record {} of `{}`", index + 1, path.display()), value)
        })
        .collect()
}

fn lines(path: &Path, text: &str) -> Result<Vec<Record>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let location = format!("line {} of `{}`", index + 1, path.display());
            match serde_json::from_str(line) {
                Ok(value) => Record::of_value(location, value),
                Err(error) => Err(Error::Json { location, reason: error.to_string() }),
            }
        })
        .collect()
}

impl Record {
    /// A record with these fields at `location`, for messages.
    pub fn new(location: String, fields: Map<String, Value>) -> Self {
        Self { location, fields }
    }

    fn of_value(location: String, value: Value) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self { location, fields }),
            _ => Err(Error::Json { location, reason: "expected an object".to_owned() }),
        }
    }

    /// The record's location, such as ``line 3 of `out.jsonl` ``.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Whether the record has the field, even if it is null.
    pub fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// A string field.
    ///
    /// # Errors
    /// [`Error::Field`] if it is missing, null or not a string.
    pub fn text(&self, field: &str) -> Result<&str> {
        self.optional_text(field)?.ok_or_else(|| self.field_error(field, "is missing"))
    }

    /// A string field that may be null or absent.
    ///
    /// # Errors
    /// [`Error::Field`] for any other type.
    pub fn optional_text(&self, field: &str) -> Result<Option<&str>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.field_error(field, "must be a string")),
        }
    }

    /// A string or number field, as text.
    ///
    /// # Errors
    /// [`Error::Field`] if it is missing, null or of any other type.
    pub fn text_or_number(&self, field: &str) -> Result<String> {
        self.optional_text_or_number(field)?.ok_or_else(|| self.field_error(field, "is missing"))
    }

    /// A string or number field, as text, that may be null or absent.
    ///
    /// # Errors
    /// [`Error::Field`] for any other type.
    pub fn optional_text_or_number(&self, field: &str) -> Result<Option<String>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.field_error(field, "must be a string or a number")),
        }
    }

    /// A reference answer: a string, a number, or the JSON of a list or an object.
    ///
    /// # Errors
    /// [`Error::Field`] if it is missing, null or of any other type.
    pub fn answer(&self, field: &str) -> Result<String> {
        match self.fields.get(field) {
            Some(json @ (Value::Array(_) | Value::Object(_))) => Ok(json.to_string()),
            _ => self.text_or_number(field),
        }
    }

    /// A field that is a list of strings.
    ///
    /// # Errors
    /// [`Error::Field`] if it is missing, null or of any other type.
    pub fn texts(&self, field: &str) -> Result<Vec<String>> {
        let values = match self.fields.get(field) {
            None | Some(Value::Null) => return Err(self.field_error(field, "is missing")),
            Some(value) => value.as_array(),
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        values
            .and_then(|values| values.iter().map(text).collect())
            .ok_or_else(|| self.field_error(field, "must be a list of strings"))
    }

    /// An [`Error::Field`] about this record.
    pub fn field_error(&self, field: &str, expected: impl Into<Cow<'static, str>>) -> Error {
        let (location, expected) = (self.location.clone(), expected.into());
        Error::Field { location, field: field.to_owned(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Record>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    /// The error message, without the file's folder.
    fn message(result: Result<impl std::fmt::Debug>) -> String {
        let message = result.unwrap_err().to_string();
        match message.split_once("`/") {
            Some((before, rest)) => {
                let (path, after) = rest.split_once('`').unwrap();
                format!("{before}`{}`{after}", path.rsplit_once('/').unwrap().1)
            }
            None => message,
        }
    }

    #[test]
    fn a_json_list_and_jsonl_give_the_same_records() {
        let list = read_text("\u{feff}\n [{\"a\": \"1\"},\n {\"a\": \"2\"}]").unwrap();
        let lines = read_text("{\"a\": \"1\"}\n\n{\"a\": \"2\"}\r\n").unwrap();
        let texts = |records: &[Record]| -> Vec<String> {
            records.iter().map(|record| record.text("a").unwrap().to_owned()).collect()
        };
        assert_eq!(texts(&list), ["1", "2"]);
        assert_eq!(texts(&list), texts(&lines));
    }

    #[test]
    fn an_invalid_line_is_reported_by_its_number() {
        assert_eq!(
            message(read_text("{}\n{\"a\": \n")),
            "cannot parse line 2 of `out`: EOF while parsing a value at line 1 column 6"
        );
        assert_eq!(
            message(read_text("{}\n\n3")),
            "cannot parse line 3 of `out`: expected an object"
        );
    }

    #[test]
    fn an_invalid_record_of_a_list_is_reported_by_its_number() {
        assert_eq!(
            message(read_text("[{}, 3]")),
            "cannot parse record 2 of `out`: expected an object"
        );
    }

    #[test]
    fn a_file_without_records_is_an_error() {
        for text in ["", "\n \n", "[]"] {
            assert_eq!(message(read_text(text)), "`out` has no records");
        }
    }

    #[test]
    fn a_list_of_strings_has_nothing_else() {
        let records =
            read_text("{\"a\": [\"x\", \"y\"], \"b\": [\"x\", 1], \"c\": \"x\", \"d\": null}")
                .unwrap();
        assert_eq!(records[0].texts("a").unwrap(), ["x", "y"]);
        for field in ["b", "c"] {
            let expected = format!("`{field}` in line 1 of `out` must be a list of strings");
            assert_eq!(message(records[0].texts(field)), expected);
        }
        assert_eq!(message(records[0].texts("d")), "`d` in line 1 of `out` is missing");
    }

    #[test]
    fn an_invalid_field_is_reported_with_its_line() {
        let records = read_text("{\"a\": 1, \"n\": null, \"o\": []}").unwrap();
        assert_eq!(message(records[0].text("a")), "`a` in line 1 of `out` must be a string");
        assert_eq!(message(records[0].text("b")), "`b` in line 1 of `out` is missing");
        assert_eq!(message(records[0].text("n")), "`n` in line 1 of `out` is missing");
        assert_eq!(
            message(records[0].text_or_number("o")),
            "`o` in line 1 of `out` must be a string or a number"
        );
        assert_eq!(records[0].text_or_number("a").unwrap(), "1");
        assert_eq!(records[0].optional_text("n").unwrap(), None);
        assert!(records[0].has("n") && !records[0].has("b"));
    }
}

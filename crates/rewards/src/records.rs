//! Saved outputs read back: a JSON list, or JSONL with one record a line.
//!
//! The two containers and the records in them are told apart by their content, not by the file's
//! name, so that a list and lines of the same records are read alike.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One JSON object of a file, with its place for messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    place: String,
    fields: Map<String, Value>,
}

/// Reads all records of a file: the objects of a JSON list, or of its lines that are not blank.
///
/// # Errors
/// The file cannot be read, is not JSON, holds something other than objects, or holds nothing.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)
        .map_err(|reason| Error::Read { path: path.into(), reason })?;
    // Some editors begin a file with a mark that is no part of the JSON.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let records =
        if text.trim_start().starts_with('[') { list(path, text) } else { lines(path, text) }?;
    match records.is_empty() {
        true => Err(Error::NoRecords { path: path.into() }),
        false => Ok(records),
    }
}

fn list(path: &Path, text: &str) -> Result<Vec<Record>> {
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| Error::Json {
        place: format!("`{}`", path.display()),
        why: error.to_string(),
    })?;
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            Record::new(format!("record {} of `{}`", index + 1, path.display()), value)
        })
        .collect()
}

fn lines(path: &Path, text: &str) -> Result<Vec<Record>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let place = format!("line {} of `{}`", index + 1, path.display());
            match serde_json::from_str(line) {
                Ok(value) => Record::new(place, value),
                Err(error) => Err(Error::Json { place, why: error.to_string() }),
            }
        })
        .collect()
}

impl Record {
    fn new(place: String, value: Value) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self { place, fields }),
            _ => Err(Error::Json { place, why: "it should be an object".to_owned() }),
        }
    }

    /// Where the record stands, such as ``line 3 of `out.jsonl` ``.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the record has the field, be it null.
    pub fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// A field that holds text.
    ///
    /// # Errors
    /// [`Error::Field`] where it is missing, null or no text.
    pub fn text(&self, field: &str) -> Result<&str> {
        self.optional_text(field)?.ok_or_else(|| self.fault(field, "is missing"))
    }

    /// A field that holds text, is null or is not there.
    ///
    /// # Errors
    /// [`Error::Field`] where it holds something else.
    pub fn optional_text(&self, field: &str) -> Result<Option<&str>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.fault(field, "should be text")),
        }
    }

    /// A field that holds text or a number, as text.
    ///
    /// # Errors
    /// [`Error::Field`] where it is missing, null or something else.
    pub fn text_or_number(&self, field: &str) -> Result<String> {
        self.optional_text_or_number(field)?.ok_or_else(|| self.fault(field, "is missing"))
    }

    /// A field that holds text or a number, as text, is null or is not there.
    ///
    /// # Errors
    /// [`Error::Field`] where it holds something else.
    pub fn optional_text_or_number(&self, field: &str) -> Result<Option<String>> {
        match self.fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.fault(field, "should be text or a number")),
        }
    }

    /// An [`Error::Field`] about this record.
    pub fn fault(&self, field: &str, wanted: &'static str) -> Error {
        Error::Field { place: self.place.clone(), field: field.to_owned(), wanted }
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

    /// The message about `text`, with the file's folder left out.
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
    fn a_list_and_lines_are_read_alike() {
        let list = read_text("\u{feff}\n [{\"a\": \"1\"},\n {\"a\": \"2\"}]").unwrap();
        let lines = read_text("{\"a\": \"1\"}\n\n{\"a\": \"2\"}\r\n").unwrap();
        let texts = |records: &[Record]| -> Vec<String> {
            records.iter().map(|record| record.text("a").unwrap().to_owned()).collect()
        };
        assert_eq!(texts(&list), ["1", "2"]);
        assert_eq!(texts(&list), texts(&lines));
    }

    #[test]
    fn a_broken_line_is_named() {
        assert_eq!(
            message(read_text("{}\n{\"a\": \n")),
            "line 2 of `out` is not the JSON expected: EOF while parsing a value at line 1 column 6"
        );
        assert_eq!(
            message(read_text("{}\n\n3")),
            "line 3 of `out` is not the JSON expected: it should be an object"
        );
    }

    #[test]
    fn a_record_of_a_list_is_named_by_its_number() {
        assert_eq!(
            message(read_text("[{}, 3]")),
            "record 2 of `out` is not the JSON expected: it should be an object"
        );
    }

    #[test]
    fn a_file_without_records_is_an_error() {
        for text in ["", "\n \n", "[]"] {
            assert_eq!(message(read_text(text)), "`out` holds no records");
        }
    }

    #[test]
    fn a_wrong_field_is_named_with_its_line() {
        let records = read_text("{\"a\": 1, \"n\": null, \"o\": []}").unwrap();
        assert_eq!(message(records[0].text("a")), "`a` in line 1 of `out` should be text");
        assert_eq!(message(records[0].text("b")), "`b` in line 1 of `out` is missing");
        assert_eq!(message(records[0].text("n")), "`n` in line 1 of `out` is missing");
        assert_eq!(
            message(records[0].text_or_number("o")),
            "`o` in line 1 of `out` should be text or a number"
        );
        assert_eq!(records[0].text_or_number("a").unwrap(), "1");
        assert_eq!(records[0].optional_text("n").unwrap(), None);
        assert!(records[0].has("n") && !records[0].has("b"));
    }
}

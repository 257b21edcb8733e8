//! How a question file is read.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::parquet::Bytes;
use crate::record::column_names;

/// What [`read_samples`](super::read_samples) does with images and videos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MediaUse {
    /// They are looked up, and a missing one is an error.
    #[default]
    Required,
    /// They are ignored, for a model that reads text only: markers are part of the text.
    Ignored,
}

/// How a question file is read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Columns under other names.
    pub columns: Columns,
    /// The folder that relative paths are in; by default the folder of the question file.
    pub image_dir: Option<PathBuf>,
    /// The folder of the videos of official questions, found by their file names.
    pub video_dir: Option<PathBuf>,
    /// Whether bad records are left out and counted; otherwise the first one is an error.
    pub skip_bad_records: bool,
    /// Whether images and videos are looked up.
    pub media: MediaUse,
}

/// The names of columns that can be renamed.
pub(super) const COLUMNS: [&str; 17] = [
    "Question_id",
    "question",
    "problem",
    "prompt",
    "messages",
    "conversations",
    "answer",
    "solution",
    "images",
    "image",
    "videos",
    "video",
    "id",
    "options",
    "problem_type",
    "data_type",
    "path",
];

/// Columns under other names than those of a format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The name here, and the name in the file.
    renames: Vec<(String, String)>,
}

impl FromStr for Columns {
    type Err = Error;

    /// Parses `answer=label,images=pics`: the name of a format's column, then that of the file.
    fn from_str(text: &str) -> Result<Self> {
        let fault = |reason: String| Error::Columns { text: text.to_owned(), reason };
        let mut renames: Vec<(String, String)> = Vec::new();
        for pair in text.split(',') {
            let (ours, theirs) = pair
                .split_once('=')
                .map(|(ours, theirs)| (ours.trim(), theirs.trim()))
                .filter(|(ours, theirs)| !ours.is_empty() && !theirs.is_empty())
                .ok_or_else(|| fault(format!("`{pair}` is not `column=name in the file`")))?;
            if !COLUMNS.contains(&ours) {
                let known = COLUMNS.join("`, `");
                return Err(fault(format!("`{ours}` is not a known column; known: `{known}`")));
            }
            if renames.iter().any(|(one, other)| one == ours || other == theirs) {
                return Err(fault(format!("`{pair}` names a column twice")));
            }
            renames.push((ours.to_owned(), theirs.to_owned()));
        }
        Ok(Self { renames })
    }
}

impl Columns {
    /// Whether a column of the file, by its name there, is one that a format reads.
    pub(super) fn uses(&self, name: &str) -> bool {
        COLUMNS.contains(&name) || self.renames.iter().any(|(_, theirs)| theirs == name)
    }

    /// Checks that the columns to rename are there.
    pub(super) fn check(&self) -> ColumnCheck<'_> {
        let missing = self.renames.iter().map(|(_, theirs)| theirs.as_str()).collect();
        ColumnCheck { missing, found: None }
    }

    /// Gives the columns of a record their names here; a column that already has one of them is replaced.
    pub(super) fn rename(&self, fields: &mut Map<String, Value>, bytes: &mut Bytes) {
        // All are taken first, so that two columns can exchange their names.
        let taken: Vec<_> = self
            .renames
            .iter()
            .filter_map(|(ours, theirs)| Some((ours, theirs, fields.shift_remove(theirs)?)))
            .collect();
        for (ours, theirs, value) in taken {
            fields.insert(ours.clone(), value);
            if bytes.is_empty() {
                continue;
            }
            let within = |key: &str| {
                let rest = key.strip_prefix(theirs.as_str())?;
                let ends = rest.is_empty() || rest.starts_with(['[', '.']);
                ends.then(|| format!("{ours}{rest}"))
            };
            let moved: Vec<_> =
                bytes.keys().filter_map(|key| Some((key.clone(), within(key)?))).collect();
            for (from, to) in moved {
                if let Some(value) = bytes.remove(&from) {
                    bytes.insert(to, value);
                }
            }
        }
    }
}

/// Which of the columns to rename no record has had yet.
#[derive(Debug)]
pub(super) struct ColumnCheck<'a> {
    missing: Vec<&'a str>,
    /// The columns of the first record.
    found: Option<String>,
}

impl ColumnCheck<'_> {
    /// Takes note of the columns of a record, under their names in the file.
    pub(super) fn see(&mut self, fields: &Map<String, Value>) {
        if self.missing.is_empty() {
            return;
        }
        self.found.get_or_insert_with(|| column_names(fields));
        self.missing.retain(|&theirs| !fields.contains_key(theirs));
    }

    /// # Errors
    /// [`Error::NoSuchColumn`] if no record has one of the columns.
    pub(super) fn finish(self, path: &Path) -> Result<()> {
        match (self.missing.first(), self.found) {
            (Some(&column), Some(found)) => {
                Err(Error::NoSuchColumn { path: path.into(), column: column.to_owned(), found })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn message(text: &str) -> String {
        text.parse::<Columns>().unwrap_err().to_string()
    }

    #[test]
    fn columns_are_renamed_with_their_bytes() {
        let columns: Columns = "images=pics, answer=label".parse().unwrap();
        let Value::Object(mut fields) = json!({"pics": [null], "pics2": 1, "label": "A"}) else {
            unreachable!()
        };
        let data: Arc<[u8]> = Arc::from(*b"x");
        let mut bytes =
            Bytes::from([("pics[0]".to_owned(), data.clone()), ("pics2".to_owned(), data.clone())]);
        let mut check = columns.check();
        check.see(&fields);
        check.finish(Path::new("x")).unwrap();
        columns.rename(&mut fields, &mut bytes);
        assert_eq!(
            Value::Object(fields.clone()),
            json!({"images": [null], "pics2": 1, "answer": "A"})
        );
        let mut keys: Vec<_> = bytes.into_keys().collect();
        keys.sort();
        assert_eq!(keys, ["images[0]", "pics2"]);
        let mut check = columns.check();
        check.see(&fields);
        let error = check.finish(Path::new("x")).unwrap_err().to_string();
        assert_eq!(error, "`x` has no column `pics`; it has: `pics2`, `images`, `answer`");
    }

    #[test]
    fn columns_can_exchange_their_names() {
        let columns: Columns = "question=answer,answer=question".parse().unwrap();
        let Value::Object(mut fields) = json!({"question": "A", "answer": "Where?"}) else {
            unreachable!()
        };
        columns.rename(&mut fields, &mut Bytes::new());
        assert_eq!(Value::Object(fields), json!({"question": "Where?", "answer": "A"}));
    }

    #[test]
    fn invalid_renames_are_named() {
        assert!(message("answer").contains("`answer` is not `column=name in the file`"));
        assert!(message("answer=").contains("`answer=` is not"));
        assert!(
            message("answer=a,reply=b")
                .contains("`reply` is not a known column; known: `Question_id`")
        );
        assert!(message("answer=a,answer=b").contains("`answer=b` names a column twice"));
        assert!(message("answer=a,images=a").contains("`images=a` names a column twice"));
    }
}

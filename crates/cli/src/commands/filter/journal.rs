//! The tries of every question, beside the output: what the filter decides by, and where a run that
//! was cut short goes on.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use embodied_r_data::write::write_atomic;
use embodied_r_eval::blind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Asked;
use crate::exit::Usage;

/// Longer values of a setting are not shown where it changed.
const SHOWN: usize = 40;

/// A file of a line of settings, then a line a question.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    settings: Map<String, Value>,
    replies: HashMap<usize, Replies>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    settings: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop_at: Option<usize>,
}

/// What is noted as soon as a question is answered.
#[derive(Serialize, Deserialize)]
struct Replies {
    index: usize,
    id: String,
    question: String,
    replies: Vec<String>,
}

/// A question with its tries and what follows from them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Tried {
    /// Its place among the questions of the set.
    pub(super) index: usize,
    id: String,
    pub(super) category: String,
    question: String,
    answer: char,
    /// The letter of each try; null where it named none.
    pub(super) answers: Vec<Option<char>>,
    /// How many of them are right.
    pub(super) right: usize,
    pub(super) kept: bool,
    replies: Vec<String>,
}

impl Journal {
    /// Opens the journal, or begins one; refuses one of other settings.
    pub(super) fn open(path: &Path, settings: Map<String, Value>) -> anyhow::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context(format!("cannot read `{}`", path.display())),
        };
        // What stands behind the last line end was cut while it was written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines();
        if let Some(header) = lines.next() {
            let header: Header = serde_json::from_str(header)
                .with_context(|| format!("`{}` is not a file of tries", path.display()))?;
            refuse_changed(path, &header.settings, &settings)?;
        }
        let replies = lines
            .enumerate()
            .map(|(i, line)| {
                let replies: Replies = serde_json::from_str(line)
                    .with_context(|| format!("line {} of `{}`", i + 2, path.display()))?;
                Ok((replies.index, replies))
            })
            .collect::<anyhow::Result<_>>()?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create `{}`", folder.display()))?;
        }
        let cannot = || format!("cannot write `{}`", path.display());
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let mut file = options.with_context(cannot)?;
        file.set_len(whole.len() as u64).with_context(cannot)?;
        file.seek(SeekFrom::End(0)).with_context(cannot)?;
        let mut journal = Self { path: path.to_owned(), file, settings, replies };
        if whole.is_empty() {
            let header = Header { settings: journal.settings.clone(), drop_at: None };
            journal.line(&header)?;
        }
        Ok(journal)
    }

    /// Whether that question has its tries.
    pub(super) fn has(&self, index: usize, question: &str) -> bool {
        self.replies.get(&index).is_some_and(|replies| replies.question == question)
    }

    /// Notes the tries of a question.
    pub(super) fn add(&mut self, asked: &Asked<'_>, replies: Vec<String>) -> anyhow::Result<()> {
        let (id, question) = (asked.id.clone(), asked.text.to_owned());
        let replies = Replies { index: asked.index, id, question, replies };
        self.line(&replies)?;
        self.replies.insert(asked.index, replies);
        Ok(())
    }

    /// The tries of a question and what follows from them; `None` where it could not be asked.
    pub(super) fn tried(&self, asked: &Asked<'_>, drop_at: usize) -> Option<Tried> {
        let replies = self.replies.get(&asked.index).filter(|of| of.question == asked.text)?;
        let answers: Vec<Option<char>> =
            replies.replies.iter().map(|reply| blind::letter(reply)).collect();
        let right = answers.iter().filter(|answer| **answer == Some(asked.answer)).count();
        Some(Tried {
            index: asked.index,
            id: asked.id.clone(),
            category: asked.category.to_owned(),
            question: asked.text.to_owned(),
            answer: asked.answer,
            answers,
            right,
            kept: right < drop_at,
            replies: replies.replies.clone(),
        })
    }

    /// Writes the file anew, in the order of the questions and with what was decided. Tries of
    /// questions that are not among them stay, for a run that takes those as well.
    pub(super) fn close(mut self, tried: &[Tried], drop_at: usize) -> anyhow::Result<()> {
        let mut text = Vec::new();
        let mut add = |value: Value| {
            text.extend(value.to_string().into_bytes());
            text.push(b'\n');
        };
        add(serde_json::to_value(Header { settings: self.settings, drop_at: Some(drop_at) })?);
        for tried in tried {
            self.replies.remove(&tried.index);
            add(serde_json::to_value(tried)?);
        }
        let mut others: Vec<Replies> = self.replies.into_values().collect();
        others.sort_by_key(|replies| replies.index);
        for replies in others {
            add(serde_json::to_value(replies)?);
        }
        Ok(write_atomic(&self.path, &text)?)
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

/// Refuses tries that were made with other settings, and names what differs.
fn refuse_changed(
    path: &Path,
    before: &Map<String, Value>,
    now: &Map<String, Value>,
) -> Result<(), Usage> {
    let changed: Vec<String> = now
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, value)| {
            let (old, new) =
                (before.get(name).unwrap_or(&Value::Null).to_string(), value.to_string());
            match old.len().max(new.len()) <= SHOWN {
                true => format!("`{name}` was {old} and is {new}"),
                false => format!("`{name}` is another"),
            }
        })
        .collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(Usage(format!(
            "`{}` holds tries with other settings: {}; give those again, another `--out`, or remove \
             the file to ask anew",
            path.display(),
            changed.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(temperature: f64) -> Map<String, Value> {
        let settings = json!({"model": "m", "temperature": temperature});
        settings.as_object().unwrap().clone()
    }

    fn asked(index: usize, text: &str) -> Asked<'_> {
        Asked { index, id: format!("q{index}"), category: "c", text, answer: 'B' }
    }

    fn replies(letters: &str) -> Vec<String> {
        letters.chars().map(|letter| format!("<answer>{letter}</answer>")).collect()
    }

    #[test]
    fn a_question_is_dropped_from_the_mark_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join("j"), settings(1.0)).unwrap();
        journal.add(&asked(0, "x"), replies("BBAB")).unwrap();
        let kept = |mark| journal.tried(&asked(0, "x"), mark).unwrap().kept;
        assert_eq!([1, 2, 3, 4].map(kept), [false, false, false, true]);
        assert_eq!(journal.tried(&asked(0, "x"), 3).unwrap().right, 3);
    }

    #[test]
    fn a_torn_line_is_asked_again_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path, settings(1.0)).unwrap();
        journal.add(&asked(0, "x"), replies("A")).unwrap();
        journal.add(&asked(1, "y"), replies("B")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let journal = Journal::open(&path, settings(1.0)).unwrap();
        assert!(journal.has(0, "x") && !journal.has(1, "y"));
        assert!(!journal.has(0, "another question at that place"));
    }

    #[test]
    fn a_closed_journal_goes_on_with_all_its_tries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path, settings(1.0)).unwrap();
        journal.add(&asked(7, "z"), replies("A")).unwrap();
        journal.add(&asked(0, "x"), replies("B")).unwrap();
        let tried = vec![journal.tried(&asked(0, "x"), 1).unwrap()];
        journal.close(&tried, 1).unwrap();
        let journal = Journal::open(&path, settings(1.0)).unwrap();
        assert!(journal.has(0, "x") && journal.has(7, "z"));
        assert_eq!(journal.tried(&asked(0, "x"), 2).unwrap().answers, [Some('B')]);
    }

    #[test]
    fn a_changed_setting_is_named_with_both_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        drop(Journal::open(&path, settings(1.0)).unwrap());
        let error = Journal::open(&path, settings(0.5)).err().unwrap().to_string();
        assert!(error.contains("other settings: `temperature` was 1.0 and is 0.5;"), "{error}");
    }
}

//! Journal of the tries of every question, next to the output: records the decisions, and lets an interrupted run
//! resume.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use embodied_r_data::write::write_atomic;
use embodied_r_eval::blind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::BlindQuestion;
use crate::exit::Usage;

/// Maximum length of a changed setting's value in a message.
const MAX_VALUE_CHARS: usize = 40;

/// A file with a line of settings, then one line per question.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    settings: Map<String, Value>,
    responses: HashMap<usize, Responses>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    settings: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop_at: Option<usize>,
}

/// A line written as soon as a question is answered.
#[derive(Serialize, Deserialize)]
struct Responses {
    index: usize,
    id: String,
    question: String,
    #[serde(rename = "replies")]
    responses: Vec<String>,
}

/// A question with its tries and the decision.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FilteredQuestion {
    /// Its index in the question set.
    pub(super) index: usize,
    id: String,
    pub(super) category: String,
    question: String,
    answer: char,
    /// The letter of each try; null if it could not be parsed.
    pub(super) answers: Vec<Option<char>>,
    /// Number of correct tries.
    pub(super) right: usize,
    pub(super) kept: bool,
    #[serde(rename = "replies")]
    responses: Vec<String>,
}

impl Journal {
    /// Opens the journal, or creates it; fails if it has other settings.
    pub(super) fn open(path: &Path, settings: Map<String, Value>) -> anyhow::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context(format!("cannot read `{}`", path.display())),
        };
        // Text after the last newline was interrupted while being written.
        let mut whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines();
        if let Some(header) = lines.next() {
            let header: Header = serde_json::from_str(header)
                .with_context(|| format!("cannot parse `{}`", path.display()))?;
            match lines.clone().next() {
                Some(_) => refuse_changed(path, &header.settings, &settings)?,
                // Nothing is lost: an earlier run failed before its first completion.
                None => whole = "",
            }
        }
        let responses = lines
            .enumerate()
            .map(|(i, line)| {
                let responses: Responses = serde_json::from_str(line).with_context(|| {
                    format!("cannot parse line {} of `{}`", i + 2, path.display())
                })?;
                Ok((responses.index, responses))
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
        let mut journal = Self { path: path.to_owned(), file, settings, responses };
        if whole.is_empty() {
            let header = Header { settings: journal.settings.clone(), drop_at: None };
            journal.line(&header)?;
        }
        Ok(journal)
    }

    /// Whether the question has its tries.
    pub(super) fn has(&self, index: usize, question: &str) -> bool {
        self.responses.get(&index).is_some_and(|responses| responses.question == question)
    }

    /// Records the tries of a question.
    pub(super) fn add(
        &mut self,
        blind_question: &BlindQuestion<'_>,
        responses: Vec<String>,
    ) -> anyhow::Result<()> {
        let (id, question) = (blind_question.id.clone(), blind_question.text.to_owned());
        let responses = Responses { index: blind_question.index, id, question, responses };
        self.line(&responses)?;
        self.responses.insert(blind_question.index, responses);
        Ok(())
    }

    /// The tries of a question and the decision; `None` if its requests failed.
    pub(super) fn filtered(
        &self,
        blind_question: &BlindQuestion<'_>,
        drop_at: usize,
    ) -> Option<FilteredQuestion> {
        let responses = self
            .responses
            .get(&blind_question.index)
            .filter(|of| of.question == blind_question.text)?;
        let answers: Vec<Option<char>> =
            responses.responses.iter().map(|reply| blind::letter(reply)).collect();
        let right = answers.iter().filter(|answer| **answer == Some(blind_question.answer)).count();
        Some(FilteredQuestion {
            index: blind_question.index,
            id: blind_question.id.clone(),
            category: blind_question.category.to_owned(),
            question: blind_question.text.to_owned(),
            answer: blind_question.answer,
            answers,
            right,
            kept: right < drop_at,
            responses: responses.responses.clone(),
        })
    }

    /// Rewrites the file in question order, with the decisions. Tries of other questions are kept for a later run that
    /// includes them.
    pub(super) fn close(
        mut self,
        filtered: &[FilteredQuestion],
        drop_at: usize,
    ) -> anyhow::Result<()> {
        let mut text = Vec::new();
        let mut add = |value: Value| {
            text.extend(value.to_string().into_bytes());
            text.push(b'\n');
        };
        add(serde_json::to_value(Header { settings: self.settings, drop_at: Some(drop_at) })?);
        for filtered in filtered {
            self.responses.remove(&filtered.index);
            add(serde_json::to_value(filtered)?);
        }
        let mut others: Vec<Responses> = self.responses.into_values().collect();
        others.sort_by_key(|responses| responses.index);
        for responses in others {
            add(serde_json::to_value(responses)?);
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

/// Fails if tries were sampled with other settings, and names the differences.
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
            match old.len().max(new.len()) <= MAX_VALUE_CHARS {
                true => format!("`{name}` was {old} and is {new}"),
                false => format!("`{name}` differs"),
            }
        })
        .collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(Usage(format!(
            "`{}` has completions generated with different settings: {}; use the original settings, choose another `--output`, \
             or remove the file to start over",
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

    fn blind_question(index: usize, text: &str) -> BlindQuestion<'_> {
        BlindQuestion { index, id: format!("q{index}"), category: "c", text, answer: 'B' }
    }

    fn responses(letters: &str) -> Vec<String> {
        letters.chars().map(|letter| format!("<answer>{letter}</answer>")).collect()
    }

    #[test]
    fn a_question_is_dropped_at_the_threshold() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join("j"), settings(1.0)).unwrap();
        journal.add(&blind_question(0, "x"), responses("BBAB")).unwrap();
        let kept = |drop_at| journal.filtered(&blind_question(0, "x"), drop_at).unwrap().kept;
        assert_eq!([1, 2, 3, 4].map(kept), [false, false, false, true]);
        assert_eq!(journal.filtered(&blind_question(0, "x"), 3).unwrap().right, 3);
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path, settings(1.0)).unwrap();
        journal.add(&blind_question(0, "x"), responses("A")).unwrap();
        journal.add(&blind_question(1, "y"), responses("B")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let journal = Journal::open(&path, settings(1.0)).unwrap();
        assert!(journal.has(0, "x") && !journal.has(1, "y"));
        assert!(!journal.has(0, "another question at that index"));
    }

    #[test]
    fn a_closed_journal_can_be_resumed_with_all_its_tries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path, settings(1.0)).unwrap();
        journal.add(&blind_question(7, "z"), responses("A")).unwrap();
        journal.add(&blind_question(0, "x"), responses("B")).unwrap();
        let filtered = vec![journal.filtered(&blind_question(0, "x"), 1).unwrap()];
        journal.close(&filtered, 1).unwrap();
        let journal = Journal::open(&path, settings(1.0)).unwrap();
        assert!(journal.has(0, "x") && journal.has(7, "z"));
        assert_eq!(journal.filtered(&blind_question(0, "x"), 2).unwrap().answers, [Some('B')]);
    }

    #[test]
    fn a_changed_setting_is_named_with_both_values() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        drop(Journal::open(&path, settings(1.5)).unwrap());
        let mut journal = Journal::open(&path, settings(1.0)).unwrap();
        journal.add(&blind_question(0, "x"), responses("A")).unwrap();
        let error = Journal::open(&path, settings(0.5)).err().unwrap().to_string();
        assert!(error.contains("different settings: `temperature` was 1.0 and is 0.5;"), "{error}");
    }
}

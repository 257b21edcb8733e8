//! Journal of finished completions, from which an interrupted run resumes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::exit;

/// A file next to the output: a line of settings, then one line per question with its completions.
pub(in crate::commands) struct Journal {
    path: PathBuf,
    file: File,
    answers: HashMap<usize, Answer>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    settings: String,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    index: usize,
    question: String,
    completions: Vec<String>,
}

impl Journal {
    /// Opens the journal, or creates it.
    pub(super) fn open(path: &Path, settings: &str) -> anyhow::Result<Self> {
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
            let is_changed = header.settings != settings;
            if is_changed && lines.clone().next().is_none() {
                // Nothing is lost: an earlier run failed before its first completion.
                whole = "";
            } else if is_changed {
                return Err(exit::hint(
                    format!(
                        "`{}` has completions generated with different settings",
                        path.display()
                    ),
                    "use the original settings, choose another `--output`, or remove the file to start over",
                ));
            }
        }
        let answers = lines
            .enumerate()
            .map(|(i, line)| {
                let answer: Answer = serde_json::from_str(line).with_context(|| {
                    format!("cannot parse line {} of `{}`", i + 2, path.display())
                })?;
                Ok((answer.index, answer))
            })
            .collect::<anyhow::Result<_>>()?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create `{}`", folder.display()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        file.set_len(whole.len() as u64)?;
        let mut journal = Self { path: path.to_owned(), file, answers };
        std::io::Seek::seek(&mut journal.file, std::io::SeekFrom::End(0))?;
        if whole.is_empty() {
            journal.line(&Header { settings: settings.to_owned() })?;
        }
        Ok(journal)
    }

    /// Whether the question is answered.
    pub(super) fn has(&self, index: usize, question: &str) -> bool {
        self.answers.get(&index).is_some_and(|answer| answer.question == question)
    }

    /// Records the completions of a question.
    pub(super) fn add(
        &mut self,
        index: usize,
        question: &str,
        completions: Vec<String>,
    ) -> anyhow::Result<()> {
        let answer = Answer { index, question: question.to_owned(), completions };
        self.line(&answer)?;
        self.answers.insert(index, answer);
        Ok(())
    }

    /// Takes the completions of the question.
    pub(super) fn take(&mut self, index: usize) -> Option<Vec<String>> {
        self.answers.remove(&index).map(|answer| answer.completions)
    }

    /// Removes the file, once the output is complete.
    pub(in crate::commands) fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove `{}`", self.path.display()))
    }

    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let mut journal = Journal::open(&path, "s").unwrap();
        journal.add(0, "q0", vec!["a0".into()]).unwrap();
        journal.add(1, "q1", vec!["a1".into()]).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let mut journal = Journal::open(&path, "s").unwrap();
        assert!(journal.has(0, "q0") && !journal.has(1, "q1"));
        let again = vec!["again".to_owned(), "twice".to_owned()];
        journal.add(1, "q1", again.clone()).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path, "s").unwrap().take(1), Some(again));
    }

    #[test]
    fn another_question_at_the_same_index_is_not_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        Journal::open(&path, "s").unwrap().add(0, "q", vec!["a".into()]).unwrap();
        assert!(!Journal::open(&path, "s").unwrap().has(0, "other"));
    }

    #[test]
    fn other_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        Journal::open(&path, "s").unwrap().add(0, "q", vec!["a".into()]).unwrap();
        assert!(Journal::open(&path, "t").is_err());
        assert!(Journal::open(&path, "s").unwrap().has(0, "q"));
    }

    #[test]
    fn settings_can_change_before_the_first_completion() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        drop(Journal::open(&path, "s").unwrap());
        Journal::open(&path, "t").unwrap().add(0, "q", vec!["a".into()]).unwrap();
        assert!(Journal::open(&path, "t").unwrap().has(0, "q"));
        assert!(Journal::open(&path, "s").is_err());
    }
}

//! Journal of finished completions, from which an interrupted run resumes.

use std::collections::HashMap;
use std::path::Path;

use embodied_r_files::Journal as JournalFile;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::journal;

/// The completions of each question, in a file next to the output.
pub(in crate::commands) struct Journal {
    file: JournalFile,
    answers: HashMap<usize, Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    index: usize,
    question: String,
    completions: Vec<String>,
}

impl Journal {
    /// Opens the journal, or creates it.
    ///
    /// # Errors
    /// As [`journal::open`].
    pub(super) fn open(path: &Path, settings: &Map<String, Value>) -> anyhow::Result<Self> {
        let (file, answers) = journal::open::<Answer>(path, settings)?;
        let answers = answers.into_iter().map(|answer| (answer.index, answer)).collect();
        Ok(Self { file, answers })
    }

    /// Whether the question is done.
    pub(super) fn has(&self, index: usize, question: &str) -> bool {
        self.answers.get(&index).is_some_and(|answer| answer.question == question)
    }

    /// Records the completions of a question; none if its prompt exceeds the context length.
    pub(super) fn add(
        &mut self,
        index: usize,
        question: &str,
        completions: Vec<String>,
    ) -> anyhow::Result<()> {
        let answer = Answer { index, question: question.to_owned(), completions };
        self.file.append(&answer)?;
        self.answers.insert(index, answer);
        Ok(())
    }

    /// Takes the completions of the question.
    pub(super) fn take(&mut self, index: usize) -> Option<Vec<String>> {
        self.answers.remove(&index).map(|answer| answer.completions)
    }

    /// Removes the file, once the output is complete.
    pub(in crate::commands) fn remove(self) -> anyhow::Result<()> {
        Ok(self.file.remove()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_question_at_the_same_index_is_not_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let mut journal = Journal::open(&path, &Map::new()).unwrap();
        journal.add(0, "q", vec!["a".into(), "b".into()]).unwrap();
        drop(journal);
        let mut journal = Journal::open(&path, &Map::new()).unwrap();
        assert!(journal.has(0, "q") && !journal.has(0, "other") && !journal.has(1, "q"));
        assert_eq!(journal.take(0).unwrap(), ["a", "b"]);
    }
}

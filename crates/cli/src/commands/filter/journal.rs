//! Journal of the tries of every question, next to the output: records the decisions, and lets an interrupted run
//! resume.

use std::collections::HashMap;
use std::iter;
use std::path::Path;

use embodied_r_eval::blind;
use embodied_r_files::Journal as JournalFile;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::question::BlindQuestion;
use crate::journal;

/// The tries of each question, in a file next to the output.
pub(super) struct Journal {
    file: JournalFile,
    settings: Map<String, Value>,
    responses: HashMap<usize, Responses>,
}

/// A line of a finished journal.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    /// The first one.
    Header {
        settings: Map<String, Value>,
        drop_at: usize,
    },
    Filtered(&'a FilteredQuestion),
    /// The tries of a question that was not in the question set.
    Other(&'a Responses),
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
    /// Opens the journal, or creates it.
    ///
    /// # Errors
    /// As [`journal::open`].
    pub(super) fn open(path: &Path, settings: Map<String, Value>) -> anyhow::Result<Self> {
        let (file, responses) = journal::open::<Responses>(path, &settings)?;
        let responses = responses.into_iter().map(|of| (of.index, of)).collect();
        Ok(Self { file, settings, responses })
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
        let (id, question) = (blind_question.id.clone(), blind_question.text.to_string());
        let responses = Responses { index: blind_question.index, id, question, responses };
        self.file.append(&responses)?;
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
            question: blind_question.text.to_string(),
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
        for filtered in filtered {
            self.responses.remove(&filtered.index);
        }
        let mut others: Vec<Responses> = self.responses.into_values().collect();
        others.sort_by_key(|responses| responses.index);
        let header = Line::Header { settings: self.settings, drop_at };
        let lines = iter::once(header).chain(filtered.iter().map(Line::Filtered));
        Ok(self.file.rewrite(lines.chain(others.iter().map(Line::Other)))?)
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
        BlindQuestion {
            index,
            id: format!("q{index}"),
            category: "c",
            text: text.into(),
            seen: None,
            answer: 'B',
        }
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
    fn a_closed_journal_can_be_resumed_with_all_its_tries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::open(&path, settings(1.0)).unwrap();
        journal.add(&blind_question(7, "z"), responses("A")).unwrap();
        journal.add(&blind_question(0, "x"), responses("B")).unwrap();
        let filtered = vec![journal.filtered(&blind_question(0, "x"), 1).unwrap()];
        journal.close(&filtered, 1).unwrap();
        assert!(Journal::open(&path, settings(0.5)).is_err());
        let journal = Journal::open(&path, settings(1.0)).unwrap();
        assert!(journal.has(0, "x") && journal.has(7, "z"));
        assert!(!journal.has(0, "another question at that index"));
        assert_eq!(journal.filtered(&blind_question(0, "x"), 2).unwrap().answers, [Some('B')]);
    }
}

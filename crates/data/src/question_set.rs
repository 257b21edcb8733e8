//! Reads question files in the official format, EgoSchema's and MVBench's.
//!
//! The format is detected from the fields of the first record, not from the file name.

use std::path::{Path, PathBuf};

use embodied_r_files::read_text;
use serde_json::Value;

use crate::duplicates::reject_duplicates;
use crate::error::{Error, Result};
use crate::question::Question;
use crate::{egoschema, mvbench};

/// The format of a question file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionFormat {
    /// The official JSON: `Question_id`, `question` and so on.
    Official,
    /// EgoSchema: `q_uid`, `question`, `option 0` to `option 4`, with answers in a separate file.
    EgoSchema,
    /// MVBench: `video`, `question`, `candidates`, `answer`.
    MvBench,
}

/// The questions of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionSet {
    /// The file, also if a folder was given.
    pub path: PathBuf,
    /// Its format.
    pub format: QuestionFormat,
    /// The questions in the official format, in file order.
    pub questions: Vec<Question>,
    /// The 0-based index of each question's record in the file.
    pub record_indices: Vec<usize>,
    /// Number of skipped records without a published answer.
    pub unanswered: usize,
}

impl QuestionSet {
    /// Checks that no question occurs twice.
    ///
    /// # Errors
    /// [`Error::DuplicateQuestion`] with the two records.
    pub fn reject_duplicates(&self) -> Result<()> {
        // Other formats have no ids that could repeat, or have been checked.
        match self.format {
            QuestionFormat::Official => reject_duplicates(&self.path, &self.questions),
            QuestionFormat::EgoSchema | QuestionFormat::MvBench => Ok(()),
        }
    }

    /// Whether the questions are in a benchmark's own format, without captions of their videos.
    pub fn is_raw(&self) -> bool {
        self.format != QuestionFormat::Official
    }
}

/// Reads questions in any [`QuestionFormat`] from a file or a benchmark's folder.
///
/// `answers` is EgoSchema's answer file, by default `subset_answers.json` next to the questions.
/// Questions without an answer are skipped and counted.
///
/// # Errors
/// The file cannot be read or has an unknown format; a field is missing, has the wrong type or is
/// out of range (the error names the record); an id is duplicated; `answers` is given for another
/// format.
pub fn read_question_set(path: &Path, answers: Option<&Path>) -> Result<QuestionSet> {
    let path = question_file(path)?;
    let text = read_text(&path)?;
    let source = match serde_json::from_str::<Vec<Question>>(&text) {
        Ok(_) if answers.is_some() => return Err(Error::AnswersUnused { path }),
        Ok(questions) => {
            let record_indices = (0..questions.len()).collect();
            let format = QuestionFormat::Official;
            return Ok(QuestionSet { path, format, questions, record_indices, unanswered: 0 });
        }
        Err(source) => source,
    };
    let values: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let has = |field: &str| values.first().is_some_and(|first| first.get(field).is_some());
    let (format, read) = if has(egoschema::ID) {
        (QuestionFormat::EgoSchema, egoschema::read(&path, &values, answers)?)
    } else if !has(mvbench::CANDIDATES) {
        // Unknown formats are reported as invalid official JSON.
        return Err(Error::Json { path, source });
    } else if answers.is_some() {
        return Err(Error::AnswersUnused { path });
    } else {
        (QuestionFormat::MvBench, mvbench::read(&path, &values)?)
    };
    let unanswered = values.len() - read.len();
    let (record_indices, questions) = read.into_iter().unzip();
    Ok(QuestionSet { path, format, questions, record_indices, unanswered })
}

/// `path`, or the question file in it if it is a benchmark's folder.
fn question_file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let known = [egoschema::QUESTIONS].into_iter().chain(mvbench::QUESTIONS);
    let found: Vec<PathBuf> =
        known.map(|name| path.join(name)).filter(|file| file.is_file()).collect();
    match found.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(Error::NoQuestions { path: path.to_owned() }),
        [first, second, ..] => {
            Err(Error::SeveralQuestionFiles { first: first.clone(), second: second.clone() })
        }
    }
}

#[cfg(test)]
mod tests;

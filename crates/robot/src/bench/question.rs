//! The bench's questions.

use std::path::{Path, PathBuf};

use embodied_r_files::read_text;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exact::Facts;
use crate::error::{Error, Result};

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QuestionType {
    /// The steps that do the task from here.
    #[serde(rename = "planning", alias = "Planning")]
    Planning,
    /// The next action in words of the task.
    #[serde(
        rename = "high-level action",
        alias = "high_level_action",
        alias = "high-level-action",
        alias = "High-level action",
        alias = "high level action"
    )]
    HighLevelAction,
    /// The directions in which the gripper is to move.
    #[serde(rename = "movement", alias = "Movement")]
    Movement,
    /// Where things are relative to each other.
    #[serde(rename = "spatial", alias = "Spatial")]
    Spatial,
}

impl QuestionType {
    /// All types, in the order of reports.
    pub const ALL: [Self; 4] =
        [Self::Planning, Self::HighLevelAction, Self::Movement, Self::Spatial];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::HighLevelAction => "high-level action",
            Self::Movement => "movement",
            Self::Spatial => "spatial",
        }
    }
}

/// An open question with its reference answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchQuestion {
    /// The image, relative to the file of the questions.
    pub image: PathBuf,
    /// The question.
    pub question: String,
    /// The reference answer.
    pub answer: String,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: QuestionType,
    /// The task in the image.
    pub task: String,
    /// A group of questions with means of its own, such as `in` for tasks of the training.
    pub split: String,
    /// What is true of the scene, for scoring by rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// Reads questions: a JSON list, or JSON lines. Fields that are not named in [`BenchQuestion`] are ignored.
///
/// # Errors
/// The file cannot be read or is empty; a record is none, with its number from 1 and its field; or an image does not
/// exist.
pub fn read_questions(path: &Path) -> Result<Vec<BenchQuestion>> {
    let text = read_text(path)?;
    let fault = |record: usize, reason: String| Error::BenchQuestion {
        path: path.into(),
        record: record + 1,
        reason,
    };
    let records: Vec<Value> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text)
            .map_err(|source| Error::Json { path: path.into(), source })?,
        false => {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let parse = |(number, line): (usize, &str)| {
                serde_json::from_str(line)
                    .map_err(|error| fault(number, format!("is not JSON: {error}")))
            };
            lines.map(parse).collect::<Result<_>>()?
        }
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut questions = Vec::with_capacity(records.len());
    for (index, record) in records.into_iter().enumerate() {
        let question: BenchQuestion = serde_json::from_value(record)
            .map_err(|error| fault(index, format!("is no question: {error}")))?;
        for (field, text) in [("question", &question.question), ("answer", &question.answer)] {
            if text.trim().is_empty() {
                return Err(fault(index, format!("has an empty `{field}`")));
            }
        }
        let image = folder.join(&question.image);
        if !image.is_file() {
            return Err(fault(index, format!("`image`: `{}` is no file", image.display())));
        }
        questions.push(question);
    }
    match questions.is_empty() {
        true => Err(Error::NoQuestions { reason: format!("`{}` has none", path.display()) }),
        false => Ok(questions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"image": "a.png", "question": "Where?", "answer": "Left.", "type": "spatial",
        "task": "pick up the cup", "split": "in"}"#;

    fn read(text: &str) -> Result<Vec<BenchQuestion>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), b"image").unwrap();
        let path = folder.path().join("bench.json");
        std::fs::write(&path, text).unwrap();
        read_questions(&path)
    }

    #[test]
    fn a_list_and_lines_are_read_alike() {
        let line = GOOD.replace('\n', " ");
        let questions = read(&format!("{line}\n\n{line}\n")).unwrap();
        assert_eq!(questions.len(), 2);
        assert_eq!(read(&format!("[{GOOD}, {GOOD}]")).unwrap(), questions);
        assert_eq!(questions[0].kind, QuestionType::Spatial);
    }

    #[test]
    fn faults_name_the_record_and_the_field() {
        for (from, to, expected) in [
            ("\"answer\": \"Left.\"", "\"answer\": \" \"", "record 2 has an empty `answer`"),
            ("\"task\": \"pick up the cup\", ", "", "missing field `task`"),
            ("spatial", "spacial", "unknown variant `spacial`"),
            ("a.png", "b.png", "b.png` is no file"),
        ] {
            let bad = GOOD.replace(from, to);
            assert_ne!(bad, GOOD);
            let error = read(&format!("[{GOOD}, {bad}]")).unwrap_err().to_string();
            assert!(error.contains("bench.json") && error.contains("record 2"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let error = read("{\"image\": \n").unwrap_err().to_string();
        assert!(error.contains("record 1 is not JSON"), "{error}");
        assert!(read("[]").unwrap_err().to_string().contains("has none"));
    }

    #[test]
    fn names_of_types_are_read_back() {
        for kind in QuestionType::ALL {
            let text = format!("\"{}\"", kind.name());
            assert_eq!(serde_json::from_str::<QuestionType>(&text).unwrap(), kind);
            assert_eq!(serde_json::to_string(&kind).unwrap(), text);
        }
    }
}

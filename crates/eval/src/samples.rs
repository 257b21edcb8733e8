//! Several completions per question, and their file format.

use std::path::Path;

use embodied_r_data::Question;
use embodied_r_files::write_lines;
use embodied_r_rewards::answer_type::AnswerType;
use embodied_r_rewards::records::{self, Record};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::predictions::{Prediction, PredictionOutput, reject_duplicates, video};

/// A question with its completions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampledQuestion {
    /// The question's identifier.
    pub id: String,
    /// The file name of its video, if known.
    #[serde(rename = "video_id", skip_serializing_if = "Option::is_none")]
    pub video: Option<String>,
    /// The benchmark's category.
    pub category: String,
    /// The reference answer, as in [`Prediction`].
    pub solution: String,
    /// How answers are compared with it, as in [`Prediction`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_type: Option<AnswerType>,
    /// Its other columns, as in [`Prediction`]; not written.
    #[serde(skip)]
    pub columns: Map<String, Value>,
    /// The name of the benchmark's prompt that it was asked with, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The prompt.
    pub question: String,
    /// The completions, in the order of sampling; empty if the question is unanswered, which counts as wrong.
    pub samples: Vec<String>,
}

impl SampledQuestion {
    /// The completions `samples` of `question`.
    pub fn new(question: &Question, samples: Vec<String>) -> Self {
        Self {
            id: question.id(),
            video: question.key().video,
            category: question.category().to_owned(),
            solution: question.solution(),
            answer_type: AnswerType::of_columns(&question.extra),
            columns: question.extra.clone(),
            prompt: None,
            question: question.question.clone(),
            samples,
        }
    }

    /// One prediction for each of `n` samples; without samples the question is unanswered.
    pub(crate) fn predictions(&self, n: usize) -> impl Iterator<Item = Prediction> + '_ {
        (0..n).map(|index| Prediction {
            id: self.id.clone(),
            video: self.video.clone(),
            question: self.question.clone(),
            category: self.category.clone(),
            solution: self.solution.clone(),
            answer_type: self.answer_type,
            row: None,
            columns: self.columns.clone(),
            output: match self.samples.get(index) {
                Some(sample) => PredictionOutput::reply(sample.clone(), self.prompt.as_deref()),
                None => PredictionOutput::Unanswered,
            },
        })
    }
}

/// Writes JSONL with one object per question, in order: `id`, `video_id` if known, `category`, `solution`,
/// `answer_type` if it has one, `question` and `samples`.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, questions: &[SampledQuestion]) -> Result<()> {
    Ok(write_lines(path, questions)?)
}

/// Reads a file that [`write()`] wrote; `video_id`, `answer_type` and `question` may be absent, and other fields are ignored.
///
/// # Errors
/// The file cannot be read, a field is missing or has the wrong type (the error names the line), or two records are of
/// one question.
pub fn read(path: &Path) -> Result<Vec<SampledQuestion>> {
    let records = records::read(path)?;
    let sampled: Vec<SampledQuestion> = records.iter().map(sampled).collect::<Result<_>>()?;
    let keys = sampled.iter().map(|of| (of.video.as_deref(), &*of.id, &*of.category));
    reject_duplicates(&records, keys)?;
    Ok(sampled)
}

fn sampled(record: &Record) -> Result<SampledQuestion> {
    Ok(SampledQuestion {
        samples: record.texts("samples")?,
        id: record.text_or_number("id")?,
        video: video(record)?,
        category: record.text("category")?.to_owned(),
        solution: record.text_or_number("solution")?,
        answer_type: AnswerType::of_columns(record.fields()),
        columns: Map::new(),
        prompt: record.optional_text("prompt")?.map(str::to_owned),
        question: record.optional_text("question")?.unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_samples_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/samples.jsonl");
        let mut question: Question = serde_json::from_str(
            r#"{"Question_id": 3, "question_category": "c", "question": "Where?\nA", "answer": "A"}"#,
        )
        .unwrap();
        let first = SampledQuestion::new(&question, vec!["x\n".to_owned(), "é".to_owned()]);
        question.video_id = Some("a.mp4".to_owned());
        question.extra.insert("problem_type".to_owned(), "OCR".into());
        let questions = [first, SampledQuestion::new(&question, vec![])];
        write(&path, &questions).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = r#"{"id":"3","category":"c","solution":"A","question":"Where?\nA","samples":["x\n","é"]}"#;
        assert_eq!(text.lines().next(), Some(first));
        let written = questions.clone().map(|of| SampledQuestion { columns: Map::new(), ..of });
        assert_eq!(read(&path).unwrap(), written);
        let types = questions.each_ref().map(|of| of.predictions(1).next().unwrap().answer_type);
        assert_eq!(types, [None, Some(AnswerType::Ocr)]);
    }

    #[test]
    fn a_repeated_question_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let line = "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\", \"samples\": [\"x\"]}\n";
        std::fs::write(&path, line.repeat(2)).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.starts_with("question `1` is in line 1 of `"), "{message}");
    }

    #[test]
    fn a_record_without_samples_is_reported_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        std::fs::write(&path, "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\"}\n").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.starts_with("`samples` in line 1 of `"), "{message}");
    }
}

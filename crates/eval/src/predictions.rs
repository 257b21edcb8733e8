//! What a model answered, and where it is read from.

use std::path::Path;

use embodied_r_rewards::answer;
use embodied_r_rewards::records::{self, Record};

use crate::error::Result;

/// One answered question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// The question's identifier, for messages.
    pub id: String,
    /// The benchmark's category.
    pub category: String,
    /// The right answer: a letter, or a number for numeric categories.
    pub solution: String,
    /// What the model put out.
    pub output: Output,
}

/// What a model put out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A whole output; its answer is the text in the `<answer>` tag, less the white space round it.
    Completion(String),
    /// An answer, taken as it is.
    Answer(String),
    /// Nothing: the record has no prediction, or null.
    Missing,
}

impl Output {
    /// The text that a protocol's rules apply to; `None` where there is none.
    pub fn answer(&self) -> Option<&str> {
        match self {
            Self::Completion(text) => answer::answer_tag(text).map(str::trim),
            Self::Answer(text) => Some(text),
            Self::Missing => None,
        }
    }

    /// The option letter by the project's own rules ([`answer`]); `None` for none or several.
    pub fn option_letter(&self) -> Option<char> {
        match self {
            Self::Completion(text) => answer::letter(text).ok(),
            Self::Answer(text) => answer::option_letter(text),
            Self::Missing => None,
        }
    }
}

/// Reads a file of predictions, a JSON list or JSONL. A record is of one of two forms:
///
/// - the official one, `question_category`, `answer` and `content`, the whole output;
/// - `id`, `category`, `solution` and `prediction`, the answer itself.
///
/// `content` and `prediction` may be null or absent. Other fields are passed over.
///
/// # Errors
/// The file cannot be read, a field is missing or of another type, with its line or record, or no
/// record holds a prediction.
pub fn read(path: &Path) -> Result<Vec<Prediction>> {
    let predictions: Vec<Prediction> =
        records::read(path)?.iter().map(prediction).collect::<Result<_>>()?;
    if predictions.iter().all(|prediction| prediction.output == Output::Missing) {
        return Err(crate::Error::NoPredictions { records: predictions.len() });
    }
    Ok(predictions)
}

fn prediction(record: &Record) -> Result<Prediction> {
    if record.has("content") || record.has("question_category") {
        return Ok(Prediction {
            id: record.text_or_number("Question_id")?,
            category: record.text("question_category")?.to_owned(),
            solution: record.text_or_number("answer")?,
            output: match record.optional_text("content")? {
                Some(text) => Output::Completion(text.to_owned()),
                None => Output::Missing,
            },
        });
    }
    Ok(Prediction {
        id: record.text_or_number("id")?,
        category: record.text("category")?.to_owned(),
        solution: record.text_or_number("solution")?,
        output: match record.optional_text_or_number("prediction")? {
            Some(text) => Output::Answer(text),
            None => Output::Missing,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Prediction>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn official_records_hold_whole_outputs() {
        let text = r#"[{"Question_id": 7, "video_id": "a.mp4", "question_category": "Causal",
            "question": "q", "answer": "B", "content": "<answer> b </answer>", "response": null}]"#;
        assert_eq!(
            read_text(text).unwrap(),
            [Prediction {
                id: "7".to_owned(),
                category: "Causal".to_owned(),
                solution: "B".to_owned(),
                output: Output::Completion("<answer> b </answer>".to_owned()),
            }]
        );
    }

    #[test]
    fn plain_records_hold_answers_as_they_are() {
        let text = "{\"id\": \"a\", \"category\": \"object_counting\", \"solution\": 4, \"prediction\": \" 4\"}\n\
                    {\"id\": 2, \"category\": \"c\", \"solution\": \"B\", \"prediction\": 3}";
        let predictions = read_text(text).unwrap();
        assert_eq!(predictions[0].solution, "4");
        assert_eq!(predictions[0].output, Output::Answer(" 4".to_owned()));
        assert_eq!(predictions[1].output, Output::Answer("3".to_owned()));
    }

    #[test]
    fn null_and_absent_predictions_are_missing() {
        let text = "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\", \"prediction\": null}\n\
                    {\"id\": 2, \"category\": \"c\", \"solution\": \"B\"}\n\
                    {\"id\": 3, \"category\": \"c\", \"solution\": \"B\", \"prediction\": \"\"}";
        let outputs: Vec<_> = read_text(text).unwrap().into_iter().map(|p| p.output).collect();
        assert_eq!(outputs, [Output::Missing, Output::Missing, Output::Answer(String::new())]);
    }

    #[test]
    fn questions_without_any_answer_are_refused() {
        let text = r#"[{"Question_id": 7, "question_category": "Causal", "question": "q", "answer": "B"}]"#;
        assert_eq!(
            read_text(text).unwrap_err().to_string(),
            "none of the 1 records holds a `content` or a `prediction`"
        );
    }

    #[test]
    fn a_missing_field_is_named_with_its_line() {
        let text = "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\", \"prediction\": \"B\"}\n\
                    {\"id\": 2, \"solution\": \"B\", \"prediction\": \"B\"}";
        let message = read_text(text).unwrap_err().to_string();
        assert!(message.starts_with("`category` in line 2 of `"), "{message}");
    }

    #[test]
    fn the_answer_of_a_whole_output_is_the_trimmed_text_of_its_tag() {
        let completion = |text: &str| Output::Completion(text.to_owned());
        assert_eq!(completion("<think>A</think><answer>\n B. x </answer>").answer(), Some("B. x"));
        assert_eq!(completion("<think>A</think> B").answer(), None);
        assert_eq!(Output::Answer(" B ".to_owned()).answer(), Some(" B "));
        assert_eq!(Output::Missing.answer(), None);
    }
}

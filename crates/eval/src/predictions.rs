//! Model predictions and their file formats.

use std::path::Path;

use embodied_r_data::duplicates::find_duplicate;
use embodied_r_data::question::category;
use embodied_r_rewards::answer;
use embodied_r_rewards::answer_type::AnswerType;
use embodied_r_rewards::records::{self, Record};
use serde_json::Value;

use crate::error::{Error, Result};

/// A model's prediction for one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// The question's identifier.
    pub id: String,
    /// The file name of its video, if known. Identifiers repeat across benchmarks; together they are unique.
    pub video: Option<String>,
    /// The benchmark's category.
    pub category: String,
    /// The reference answer: a letter, or a number for numeric categories; under [`Protocol::Accuracy`] also others.
    ///
    /// [`Protocol::Accuracy`]: crate::Protocol::Accuracy
    pub solution: String,
    /// How [`Protocol::Accuracy`](crate::Protocol::Accuracy) compares answers with it.
    pub answer_type: Option<AnswerType>,
    /// The model's output.
    pub output: PredictionOutput,
}

/// A model's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PredictionOutput {
    /// A full completion; its answer is the trimmed text of the `<answer>` tag.
    Completion(String),
    /// An answer, used verbatim.
    Answer(String),
    /// The record has no prediction, or null; skipped or wrong, as the protocol says.
    Missing,
    /// The model was asked and gave no answer, or the file has no record of the question; wrong under every protocol.
    Unanswered,
}

impl PredictionOutput {
    /// The text to score by a protocol's rules, if any.
    pub fn answer(&self) -> Option<&str> {
        match self {
            Self::Completion(text) => answer::answer_tag(text).map(str::trim),
            Self::Answer(text) => Some(text),
            Self::Missing | Self::Unanswered => None,
        }
    }

    /// The option letter by this project's rules ([`answer`]); `None` for none or several.
    pub fn option_letter(&self) -> Option<char> {
        match self {
            Self::Completion(text) => answer::letter(text).ok(),
            Self::Answer(text) => answer::option_letter(text),
            Self::Missing | Self::Unanswered => None,
        }
    }
}

/// Reads a prediction file, a JSON list or JSONL. Records have one of two formats:
///
/// - the official one: `question_category` or `kind`, `answer` and `content`, the full completion;
/// - `id`, `category`, `solution` and `prediction`, the answer alone.
///
/// `content` and `prediction` may be null or absent, and `video_id` and `answer_type` (or `problem_type`) may be absent.
/// Other fields are ignored.
///
/// # Errors
/// The file cannot be read, a field is missing or has the wrong type (the error names the line or
/// record), two records are of one question, or no record has a prediction.
pub fn read(path: &Path) -> Result<Vec<Prediction>> {
    let records = records::read(path)?;
    let predictions: Vec<Prediction> = records.iter().map(prediction).collect::<Result<_>>()?;
    let keys = predictions.iter().map(|of| (of.video.as_deref(), &*of.id, &*of.category));
    reject_duplicates(&records, keys)?;
    if predictions.iter().all(|prediction| prediction.output == PredictionOutput::Missing) {
        return Err(Error::NoPredictions { records: predictions.len() });
    }
    Ok(predictions)
}

/// Every question counts once: right answers in several records would raise the score. `keys` has each record's video,
/// identifier, and category, which tells benchmarks apart in records without a video.
///
/// # Errors
/// [`Error::Duplicate`] for the first two records of one question.
pub(crate) fn reject_duplicates<'a>(
    records: &[Record],
    keys: impl IntoIterator<Item = (Option<&'a str>, &'a str, &'a str)>,
) -> Result<()> {
    let keys = keys.into_iter();
    let keys: Vec<_> = keys
        .map(|(video, id, category)| (video, id, video.is_none().then_some(category)))
        .collect();
    let Some((first, second)) = find_duplicate(&keys) else { return Ok(()) };
    let (video, id, _) = keys[second];
    Err(Error::Duplicate {
        id: id.to_owned(),
        video: video.map(str::to_owned),
        first: records[first].location().to_owned(),
        second: records[second].location().to_owned(),
    })
}

/// The video of a record, as [`QuestionKey`](embodied_r_data::QuestionKey) has it.
pub(crate) fn video(record: &Record) -> Result<Option<String>> {
    let named = record.optional_text("video_id")?;
    let path = match record.fields().get("videos") {
        // A list of videos is no name.
        Some(Value::Array(_) | Value::Object(_)) => None,
        _ => record.optional_text("videos")?,
    };
    Ok(named.or(path).map(str::to_owned))
}

/// The category of an official record, as [`Question::category`](embodied_r_data::Question::category) has it.
fn official_category(record: &Record) -> Result<&str> {
    let kind = record.optional_text("kind")?;
    Ok(match kind {
        Some(kind) => {
            category(record.optional_text("question_category")?.unwrap_or_default(), Some(kind))
        }
        None => record.text("question_category")?,
    })
}

fn prediction(record: &Record) -> Result<Prediction> {
    let video = video(record)?;
    if record.has("content") || record.has("question_category") {
        return Ok(Prediction {
            id: record.text_or_number("Question_id")?,
            video,
            category: official_category(record)?.to_owned(),
            solution: record.answer("answer")?,
            answer_type: AnswerType::of_columns(record.fields()),
            output: match record.optional_text("content")? {
                Some(text) => PredictionOutput::Completion(text.to_owned()),
                None => PredictionOutput::Missing,
            },
        });
    }
    Ok(Prediction {
        id: record.text_or_number("id")?,
        video,
        category: record.text("category")?.to_owned(),
        solution: record.answer("solution")?,
        answer_type: AnswerType::of_columns(record.fields()),
        output: match record.optional_text_or_number("prediction")? {
            Some(text) => PredictionOutput::Answer(text),
            None => PredictionOutput::Missing,
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
    fn several_reference_answers_are_a_list() {
        let text = r#"{"id": 1, "category": "c", "solution": ["4", "four"], "prediction": 4}"#;
        assert_eq!(read_text(text).unwrap()[0].solution, r#"["4","four"]"#);
    }

    #[test]
    fn official_records_have_full_completions() {
        let text = r#"[{"Question_id": 7, "video_id": "a.mp4", "question_category": "Causal",
            "question": "q", "answer": "B", "content": "<answer> b </answer>", "response": null}]"#;
        assert_eq!(
            read_text(text).unwrap(),
            [Prediction {
                id: "7".to_owned(),
                video: Some("a.mp4".to_owned()),
                category: "Causal".to_owned(),
                solution: "B".to_owned(),
                answer_type: None,
                output: PredictionOutput::Completion("<answer> b </answer>".to_owned()),
            }]
        );
    }

    #[test]
    fn a_record_without_a_video_id_is_named_by_the_path_of_its_video() {
        let of = |videos: &str| {
            read_text(&format!(
                r#"[{{"Question_id": 7, "question_category": "c", "videos": {videos}, "answer": "B",
                    "content": "x"}}]"#
            ))
        };
        for (videos, expected) in
            [("\"a.mp4\"", Some("a.mp4")), ("[\"a.mp4\"]", None), ("null", None)]
        {
            assert_eq!(of(videos).unwrap()[0].video.as_deref(), expected, "{videos}");
        }
        assert!(of("5").unwrap_err().to_string().starts_with("`videos` in record 1"));
    }

    #[test]
    fn the_kind_of_a_record_without_a_category_is_its_category() {
        let of = |fields: &str| {
            let record =
                format!(r#"[{{"Question_id": 7, {fields} "answer": "B", "content": "x"}}]"#);
            read_text(&record).map(|found| found[0].category.clone())
        };
        assert_eq!(of(r#""kind": "waypoint","#).unwrap(), "waypoint");
        assert_eq!(of(r#""question_category": "", "kind": "state","#).unwrap(), "state");
        assert_eq!(of(r#""question_category": "Causal", "kind": "state","#).unwrap(), "Causal");
        assert!(of("").unwrap_err().to_string().starts_with("`question_category` in record 1"));
    }

    #[test]
    fn plain_records_have_verbatim_answers() {
        let text = "{\"id\": \"a\", \"category\": \"object_counting\", \"solution\": 4, \"prediction\": \" 4\"}\n\
                    {\"id\": 2, \"category\": \"c\", \"solution\": \"B\", \"prediction\": 3}";
        let predictions = read_text(text).unwrap();
        assert_eq!(predictions[0].solution, "4");
        assert_eq!(predictions[0].output, PredictionOutput::Answer(" 4".to_owned()));
        assert_eq!(predictions[1].output, PredictionOutput::Answer("3".to_owned()));
    }

    #[test]
    fn null_and_absent_predictions_are_missing() {
        let text = "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\", \"prediction\": null}\n\
                    {\"id\": 2, \"category\": \"c\", \"solution\": \"B\"}\n\
                    {\"id\": 3, \"category\": \"c\", \"solution\": \"B\", \"prediction\": \"\"}";
        let outputs: Vec<_> = read_text(text).unwrap().into_iter().map(|p| p.output).collect();
        assert_eq!(
            outputs,
            [
                PredictionOutput::Missing,
                PredictionOutput::Missing,
                PredictionOutput::Answer(String::new())
            ]
        );
    }

    #[test]
    fn a_file_without_any_prediction_is_an_error() {
        let text = r#"[{"Question_id": 7, "question_category": "Causal", "question": "q", "answer": "B"}]"#;
        assert_eq!(
            read_text(text).unwrap_err().to_string(),
            "none of the 1 records has a `content` or a `prediction`"
        );
    }

    #[test]
    fn a_repeated_question_is_refused_with_both_records() {
        let line = |id: u32, video: &str, category: &str| {
            format!(
                "{{\"id\": {id}, {video}\"category\": \"{category}\", \"solution\": \"B\", \"prediction\": \"B\"}}\n"
            )
        };
        let (a, b) = ("\"video_id\": \"a.mp4\", ", "\"video_id\": \"b.mp4\", ");
        // Identifiers repeat across the benchmarks.
        assert_eq!(read_text(&[line(1, a, "c"), line(1, b, "c")].concat()).unwrap().len(), 2);
        assert_eq!(read_text(&[line(1, "", "c"), line(1, "", "d")].concat()).unwrap().len(), 2);
        for (text, of) in [
            ([line(1, a, "c"), line(2, a, "c"), line(1, a, "d")].concat(), " about `a.mp4`"),
            ([line(1, "", "c"), line(2, "", "c"), line(1, "", "c")].concat(), ""),
        ] {
            let message = read_text(&text).unwrap_err().to_string();
            let start = format!("question `1`{of} is in line 1 of `");
            assert!(message.starts_with(&start), "{message}");
            assert!(message.contains("` and again in line 3 of `"), "{message}");
        }
    }

    #[test]
    fn a_missing_field_is_reported_with_its_line() {
        let text = "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\", \"prediction\": \"B\"}\n\
                    {\"id\": 2, \"solution\": \"B\", \"prediction\": \"B\"}";
        let message = read_text(text).unwrap_err().to_string();
        assert!(message.starts_with("`category` in line 2 of `"), "{message}");
    }

    #[test]
    fn the_answer_of_a_completion_is_the_trimmed_text_of_its_tag() {
        let completion = |text: &str| PredictionOutput::Completion(text.to_owned());
        assert_eq!(completion("<think>A</think><answer>\n B. x </answer>").answer(), Some("B. x"));
        assert_eq!(completion("<think>A</think> B").answer(), None);
        assert_eq!(PredictionOutput::Answer(" B ".to_owned()).answer(), Some(" B "));
        assert_eq!(PredictionOutput::Missing.answer(), None);
    }
}

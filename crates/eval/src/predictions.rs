//! Model predictions and their file formats.

mod forms;

use std::borrow::Cow;
use std::path::Path;

use embodied_r_data::duplicates::find_duplicate;
use embodied_r_rewards::answer;
use embodied_r_rewards::answer_type::AnswerType;
use embodied_r_rewards::records::Record;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::own_prompt::EMBODIED_R_PROMPT;

/// A model's prediction for one question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prediction {
    /// The question's identifier; empty if only [`Self::row`] is known.
    pub id: String,
    /// The 0-based row of the question in its data set, in records of harnesses that name questions by it.
    pub row: Option<usize>,
    /// The file name of its video, if known. Identifiers repeat across benchmarks; together they are unique.
    pub video: Option<String>,
    /// The question or the whole prompt; empty if it is not known.
    pub question: String,
    /// The benchmark's category; empty in records that have only an identifier.
    pub category: String,
    /// The reference answer, empty in such records: a letter, or a number for numeric categories; under [`ACCURACY`](crate::benchmarks::ACCURACY)
    /// also others.
    pub solution: String,
    /// How [`ACCURACY`](crate::benchmarks::ACCURACY) compares answers with it.
    pub answer_type: Option<AnswerType>,
    /// The question's other columns, for scorers that need more than the solution.
    pub columns: Map<String, Value>,
    /// The model's output.
    pub output: PredictionOutput,
}

/// A model's output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PredictionOutput {
    /// A full completion; its answer is the trimmed text of the `<answer>` tag.
    Completion(String),
    /// An answer, used verbatim.
    Answer(String),
    /// The record has no prediction, or null; skipped or wrong, as the protocol says.
    #[default]
    Missing,
    /// The model was asked and gave no answer, or the file has no record of the question; wrong under every protocol.
    Unanswered,
}

impl PredictionOutput {
    /// The model's reply `text` to a prompt of this name: to a benchmark's own one, all of it is the answer.
    pub fn reply(text: String, prompt: Option<&str>) -> Self {
        match prompt {
            Some(prompt) if prompt != EMBODIED_R_PROMPT => Self::Answer(text),
            _ => Self::Completion(text),
        }
    }

    /// Whether the model gave an output.
    pub fn is_given(&self) -> bool {
        matches!(self, Self::Completion(_) | Self::Answer(_))
    }

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

/// Reads a prediction file: a JSON list, JSON lines, or VLMEvalKit's table (`.tsv`). Records have one of these forms:
///
/// | form | fields |
/// |---|---|
/// | official | `question_category` or `kind`, `answer`, and `content`, the full completion |
/// | plain | `id`, `category`, `solution`, and `prediction`, the answer alone |
/// | bare | `id` and `prediction`: its questions must be known |
/// | lmms-eval (`--log_samples`) | `doc_id`, the question's row, and `resps` or `filtered_resps` |
/// | VLMEvalKit | `id` or `index`, and `prediction` |
///
/// `content` and `prediction` may be null or absent, and `video_id` and `answer_type` (or `problem_type`) may be absent.
/// `content` that answers a benchmark's own prompt (`prompt`) is taken whole. Other fields are ignored.
///
/// # Errors
/// The file cannot be read, a field is missing or has the wrong type (the error names the line or
/// record), two records are of one question, or no record has a prediction.
pub fn read(path: &Path) -> Result<Vec<Prediction>> {
    let records = forms::records(path)?;
    let predictions: Vec<Prediction> =
        records.iter().map(forms::prediction).collect::<Result<_>>()?;
    let ids: Vec<Cow<'_, str>> = predictions.iter().map(Prediction::name).collect();
    let keys = predictions.iter().zip(&ids);
    let keys = keys.map(|(of, id)| (of.video.as_deref(), id.as_ref(), &*of.category));
    reject_duplicates(&records, keys)?;
    if predictions.iter().all(|prediction| prediction.output == PredictionOutput::Missing) {
        return Err(Error::NoPredictions { records: predictions.len() });
    }
    Ok(predictions)
}

impl Prediction {
    /// Whether only the question's identifier is known, so that it must be looked up in the question set.
    pub fn is_bare(&self) -> bool {
        self.category.is_empty() && self.solution.is_empty()
    }

    /// What names the question: its identifier, or its row.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        match self.row {
            Some(row) if self.id.is_empty() => Cow::Owned(format!("row {row}")),
            _ => Cow::Borrowed(&self.id),
        }
    }
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

#[cfg(test)]
mod tests;

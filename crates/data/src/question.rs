//! The record that every stage reads and passes on.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One question about one video, in the official JSON form.
///
/// Fields that the project does not know pass through untouched, in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The benchmark's own identifier: a number or a string.
    #[serde(rename = "Question_id")]
    pub question_id: Value,
    /// File name of the video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_id: Option<String>,
    /// The benchmark's category, such as `obj_appearance_order`.
    #[serde(default)]
    pub question_category: String,
    /// `Question: …` and its choices; after perception the whole prompt.
    pub question: String,
    /// The right answer: a letter, or a number for numeric categories.
    #[serde(default)]
    pub answer: String,
    /// The scene that the video was taken in; splits never cut through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene_name: Option<String>,
    /// Path of the video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub videos: Option<String>,
    /// A model's output, where the record holds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Question {
    /// The identifier as text: a string without its quotes, a number as it is written.
    pub fn id(&self) -> String {
        match &self.question_id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// Reads a JSON list of questions.
///
/// # Errors
/// The file cannot be read, or is not a JSON list of records with `Question_id` and `question`.
pub fn read_questions(path: &Path) -> Result<Vec<Question>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|source| Error::Json { path: path.into(), source })
}

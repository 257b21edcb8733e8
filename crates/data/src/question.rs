//! The record that every pipeline stage reads and writes.

use std::path::Path;

use embodied_r_files::read_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::question_key::QuestionKey;

/// One question about one video, in the official JSON format.
///
/// Unknown fields are preserved, in their order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Question {
    /// The benchmark's identifier: a number or a string.
    #[serde(rename = "Question_id")]
    pub question_id: Value,
    /// File name of the video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub video_id: Option<String>,
    /// The benchmark's category, such as `obj_appearance_order`.
    #[serde(default)]
    pub question_category: String,
    /// `Question: …` and its choices; after perception, the whole prompt.
    pub question: String,
    /// The reference answer: a letter, or a number for numeric categories.
    #[serde(default)]
    pub answer: String,
    /// The scene of the video; a scene is never in two splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene_name: Option<String>,
    /// Path of the video. A list of videos is in [`Self::extra`].
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub videos: Option<String>,
    /// A model's output, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The field of the path of a video, or of a list of videos.
pub(crate) const VIDEOS: &str = "videos";

impl<'de> Deserialize<'de> for Question {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut question = Self::deserialize(deserializer)?;
        match question.extra.get(VIDEOS) {
            Some(Value::String(path)) => question.videos = Some(path.clone()),
            Some(Value::Null) => {}
            None | Some(Value::Array(_) | Value::Object(_)) => return Ok(question),
            Some(_) => {
                let what = "`videos` must be a path or a list of videos";
                return Err(serde::de::Error::custom(what));
            }
        }
        question.extra.shift_remove(VIDEOS);
        Ok(question)
    }
}

impl Serialize for Question {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl Question {
    /// The identifier as text, without quotes.
    pub fn id(&self) -> String {
        match &self.question_id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// The category, or else the `kind` of a question without one (questions about robots).
    pub fn category(&self) -> &str {
        category(&self.question_category, self.extra.get("kind").and_then(Value::as_str))
    }

    /// What identifies the question.
    pub fn key(&self) -> QuestionKey {
        let video = self.video_id.as_ref().or(self.videos.as_ref());
        QuestionKey { video: video.cloned(), id: self.id() }
    }
}

/// The category of a record with this `question_category` and `kind`: the first, unless it is empty.
pub fn category<'a>(question_category: &'a str, kind: Option<&'a str>) -> &'a str {
    match question_category {
        "" => kind.unwrap_or_default(),
        category => category,
    }
}

/// Reads a JSON list of questions.
///
/// # Errors
/// The file cannot be read, or is not a JSON list of records with `Question_id` and `question`.
pub fn read_questions(path: &Path) -> Result<Vec<Question>> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|source| Error::Json { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn videos_are_a_path_or_a_list_which_is_kept() {
        let of = |videos: Value| {
            let record = json!({"Question_id": 1, "question_category": "c", "question": "q",
                "answer": "A", "videos": videos, "note": 2});
            (serde_json::from_value::<Question>(record.clone()).unwrap(), record)
        };
        let (one, record) = of(json!("a.mp4"));
        assert_eq!(one.videos.as_deref(), Some("a.mp4"));
        assert_eq!(one.extra.keys().collect::<Vec<_>>(), ["note"]);
        assert_eq!(serde_json::to_value(one).unwrap(), record);
        let (none, _) = of(Value::Null);
        assert_eq!((none.videos, none.extra.get("videos")), (None, None));
        for list in [json!(["a.mp4"]), json!([{"frames": ["0.png"], "fps": 2.0}])] {
            let (many, record) = of(list.clone());
            assert_eq!((many.videos.as_ref(), many.extra.get("videos")), (None, Some(&list)));
            assert_eq!(serde_json::to_value(many).unwrap(), record);
        }
        let number = json!({"Question_id": 1, "question": "q", "videos": 5});
        let error = serde_json::from_value::<Question>(number).unwrap_err().to_string();
        assert!(error.contains("`videos` must be a path or a list"), "{error}");
    }
}

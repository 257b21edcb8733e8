//! The record that every pipeline stage reads and writes.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::answer::answer_texts;
use crate::container;
use crate::error::{Error, Result};
use crate::question_key::QuestionKey;
use crate::record::{Fault, QUESTION_ID, Record, column_names, json_type, scalar_text};

/// One question about one video, in the official JSON format.
///
/// It is read leniently: numbers where texts are expected, and null for absent fields. Unknown fields are preserved, in their
/// order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Question {
    /// The benchmark's identifier: a number or a string.
    #[serde(rename = "Question_id")]
    pub question_id: Value,
    /// File name of the video.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_id: Option<String>,
    /// The benchmark's category, such as `obj_appearance_order`.
    pub question_category: String,
    /// `Question: …` and its choices; after perception, the whole prompt.
    pub question: String,
    /// The reference answer: a letter, or a number for numeric categories; the first of [`Self::accepted_answers`].
    pub answer: String,
    /// The scene of the video; a scene is never in two splits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scene_name: Option<String>,
    /// Path of the video. A list of videos is in [`Self::extra`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub videos: Option<String>,
    /// A model's output, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// All other fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The field of the path of a video, or of a list of videos.
pub(crate) const VIDEOS: &str = "videos";

/// The field of reference answers of which any counts, if there are several.
pub const ACCEPTED_ANSWERS: &str = "accepted_answers";

impl<'de> Deserialize<'de> for Question {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let of_fault =
            |Fault { field, reason }| serde::de::Error::custom(format!("`{field}` {reason}"));
        Self::from_fields(Map::deserialize(deserializer)?).map_err(of_fault)
    }
}

impl Question {
    /// The question of a record.
    ///
    /// # Errors
    /// A field is missing or has another type.
    pub(crate) fn from_record(record: &Record<'_>) -> Result<Self> {
        Self::from_fields(record.fields.clone()).map_err(|fault| record.fault(fault))
    }

    fn from_fields(mut fields: Map<String, Value>) -> std::result::Result<Self, Fault> {
        let fault = |field: &str, reason: String| Fault { field: field.to_owned(), reason };
        let missing = |field: &str| fault(field, "is missing".to_owned());
        let wrong_type = |field: &str, expected: &str, value: &Value| {
            fault(field, format!("must be {expected}, not {}", json_type(value)))
        };
        let mut take = |field: &str| fields.shift_remove(field).filter(|value| !value.is_null());
        let question_id = match take(QUESTION_ID).ok_or_else(|| missing(QUESTION_ID))? {
            id @ (Value::String(_) | Value::Number(_)) => id,
            other => return Err(wrong_type(QUESTION_ID, "a string or a number", &other)),
        };
        let question = match take("question").ok_or_else(|| missing("question"))? {
            Value::String(text) => text,
            other => return Err(wrong_type("question", "a string", &other)),
        };
        let mut text = |field: &str| match take(field) {
            None => Ok(None),
            Some(value) => match scalar_text(&value) {
                Some(text) => Ok(Some(text)),
                None => Err(wrong_type(field, "a string or a number", &value)),
            },
        };
        let mut found = Self {
            question_id,
            video_id: text("video_id")?,
            question_category: text("question_category")?.unwrap_or_default(),
            question,
            scene_name: text("scene_name")?,
            content: text("content")?,
            ..Self::default()
        };
        let answers = match take("answer") {
            Some(value) => answer_texts("answer", &value)?,
            None => Vec::new(),
        };
        match fields.get(VIDEOS) {
            None | Some(Value::Array(_) | Value::Object(_)) => {}
            Some(Value::String(path)) => found.videos = Some(path.clone()),
            Some(Value::Null) => {}
            Some(other) => return Err(wrong_type(VIDEOS, "a path or a list of videos", other)),
        }
        if matches!(fields.get(VIDEOS), Some(Value::String(_) | Value::Null)) {
            fields.shift_remove(VIDEOS);
        }
        found.extra = fields;
        found.set_answers(answers);
        Ok(found)
    }

    /// Sets the reference answers, of which any counts.
    pub(crate) fn set_answers(&mut self, answers: Vec<String>) {
        self.answer = answers.first().cloned().unwrap_or_default();
        if answers.len() > 1 {
            self.extra.insert(ACCEPTED_ANSWERS.to_owned(), answers.into());
        }
    }

    /// The reference answers, of which any counts: `accepted_answers`, or else the only one.
    pub fn accepted_answers(&self) -> Vec<&str> {
        let listed = self.extra.get(ACCEPTED_ANSWERS).and_then(Value::as_array);
        let texts = listed.and_then(|values| values.iter().map(Value::as_str).collect());
        texts.unwrap_or_else(|| vec![self.answer.as_str()])
    }

    /// The reference answer as rewards and protocols take it: the only one, or several as a JSON list of texts.
    pub fn solution(&self) -> String {
        match self.accepted_answers().as_slice() {
            [] | [_] => self.answer.clone(),
            several => Value::from(several.to_vec()).to_string(),
        }
    }

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

/// What a record of a question has, for messages.
pub(crate) const NEEDED: &str = "`Question_id` and `question`";

/// Reads a file of questions: a JSON list, JSON lines or a parquet table.
///
/// # Errors
/// The file cannot be read, is empty, or has other records; or a field is missing or has another type. The error names the
/// record and the field.
pub fn read_questions(path: &Path) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    container::for_each(path, |index, raw| {
        let (fields, _) = raw.into_fields(path, index)?;
        if questions.is_empty() && !fields.contains_key(QUESTION_ID) {
            let found = column_names(&fields);
            return Err(Error::UnknownFormat { path: path.into(), needed: NEEDED, found });
        }
        questions.push(Question::from_record(&Record { path, index, fields: &fields })?);
        Ok(())
    })?;
    Ok(questions)
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
    }

    #[test]
    fn numbers_are_texts_and_null_is_absent() {
        let of = |fields: Value| {
            let mut record = json!({"Question_id": "a", "question": "q"});
            record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            serde_json::from_value::<Question>(record).unwrap()
        };
        for (answer, expected) in
            [(json!(4), "4"), (json!(2.5), "2.5"), (json!("B"), "B"), (Value::Null, "")]
        {
            assert_eq!(of(json!({"answer": answer})).answer, expected);
        }
        let numbers = of(json!({"video_id": 41069025, "scene_name": 41069025, "content": 3,
            "question_category": 7, "note": null}));
        assert_eq!(numbers.video_id.as_deref(), Some("41069025"));
        assert_eq!(numbers.scene_name.as_deref(), Some("41069025"));
        assert_eq!(numbers.content.as_deref(), Some("3"));
        assert_eq!(numbers.question_category, "7");
        assert_eq!(numbers.extra["note"], Value::Null);
        let absent = of(json!({"video_id": null, "scene_name": null, "content": null,
            "question_category": null, "videos": null, "answer": null}));
        assert_eq!(absent, of(json!({})));
    }

    /// The error about a file, without its folder.
    fn message(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.json");
        std::fs::write(&path, text).unwrap();
        let error = read_questions(&path).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn a_bad_field_is_named_with_its_record_and_id() {
        let first = json!({"Question_id": 1, "question": "q"});
        for (fields, expected) in [
            (
                json!({"answer": true}),
                "`answer` in record 2 of `q.json`: must be a string or a number, not a boolean (`Question_id` `7`)",
            ),
            (
                json!({"answer": {"text": "A"}}),
                "`answer` in record 2 of `q.json`: must be a string or a number, not an object (`Question_id` `7`)",
            ),
            (
                json!({"question": 3}),
                "`question` in record 2 of `q.json`: must be a string, not a number (`Question_id` `7`)",
            ),
            (
                json!({"question": null}),
                "`question` in record 2 of `q.json`: is missing (`Question_id` `7`)",
            ),
            (
                json!({"videos": 5}),
                "`videos` in record 2 of `q.json`: must be a path or a list of videos, not a number (`Question_id` `7`)",
            ),
            (
                json!({"video_id": ["a"]}),
                "`video_id` in record 2 of `q.json`: must be a string or a number, not an array (`Question_id` `7`)",
            ),
            (json!({"Question_id": null}), "`Question_id` in record 2 of `q.json`: is missing"),
            (
                json!({"Question_id": [7]}),
                "`Question_id` in record 2 of `q.json`: must be a string or a number, not an array",
            ),
        ] {
            let mut second = json!({"Question_id": 7, "question": "q"});
            second.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            assert_eq!(message(&json!([first, second]).to_string()), expected);
        }
        assert_eq!(message("[3]"), "record 1 of `q.json` must be an object, not a number");
    }

    #[test]
    fn other_files_are_named_by_what_they_have() {
        assert_eq!(
            message(r#"[{"problem": "q", "answer": "A"}]"#),
            "`q.json` is in no known format: a record needs `Question_id` and `question`; it has: `problem`, `answer`"
        );
        let csv = message("Question_id,question\n1,q\n");
        assert!(
            csv.starts_with(
                "`q.json` is not a question file: it starts with `Question_id,question`"
            ),
            "{csv}"
        );
        assert_eq!(message(""), "`q.json` has no questions");
        assert!(message("[{").starts_with("cannot parse `q.json`: EOF"));
        let folder = tempfile::tempdir().unwrap();
        let error = read_questions(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("is a directory; pass a question file in it"), "{error}");
    }

    #[test]
    fn a_list_json_lines_and_a_table_have_the_same_questions() {
        use crate::parquet::{Column, write_table};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let records = [1, 2].map(|id| json!({"Question_id": id, "question": "q", "answer": id}));
        std::fs::write(path("list"), json!(records).to_string()).unwrap();
        std::fs::write(path("lines"), records.map(|record| record.to_string()).join("\n")).unwrap();
        let columns = vec![
            ("Question_id", Column::Integers(vec![1, 2])),
            ("question", Column::Strings(vec!["q".into(), "q".into()])),
            ("answer", Column::Integers(vec![1, 2])),
        ];
        write_table(&path("table"), columns).unwrap();
        let list = read_questions(&path("list")).unwrap();
        assert_eq!(list.iter().map(|question| &*question.answer).collect::<Vec<_>>(), ["1", "2"]);
        for other in ["lines", "table"] {
            assert_eq!(read_questions(&path(other)).unwrap(), list, "{other}");
        }
        std::fs::write(path("empty"), "[]").unwrap();
        assert_eq!(read_questions(&path("empty")).unwrap(), []);
    }
}

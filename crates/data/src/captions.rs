//! Questions whose text is a prompt with captions of their video.
//!
//! ```
//! use embodied_r_data::Question;
//!
//! let question: Question = serde_json::from_str(
//!     r#"{"Question_id": 1, "question": "Video content:\n<\nFrame 0: Observe: a lamp\n>\nQuestion: Where is it?"}"#,
//! )?;
//! assert!(question.has_captions());
//! assert_eq!(question.without_captions(), Some("Question: Where is it?"));
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde_json::Value;

use crate::prompts::question_part;
use crate::question::Question;

/// The field in which `perceive` keeps the question, since `question` becomes the whole prompt.
pub const ORIGINAL_QUESTION: &str = "original_question";

/// Texts of captions in a prompt, also of the paper's code, which keeps no original question.
const CAPTION_MARKERS: [&str; 2] = ["Frame 0:", "Video content:"];

/// Places of images and videos: a text with one shows frames where captions would be.
const MEDIA_MARKERS: [&str; 2] = ["<image>", "<video>"];

impl Question {
    /// Whether the question is a prompt with captions.
    pub fn has_captions(&self) -> bool {
        self.original_question().is_some() || is_captioned(&self.question)
    }

    /// The question and its choices without captions; the whole text of a question that has none. `None` if the captions
    /// cannot be separated from the question.
    pub fn without_captions(&self) -> Option<&str> {
        match self.original_question() {
            Some(original) => Some(original),
            None if is_captioned(&self.question) => {
                Some(question_part(&self.question)).filter(|text| !is_captioned(text))
            }
            None => Some(&self.question),
        }
    }

    /// The question that `perceive` has kept beside the prompt.
    pub(crate) fn original_question(&self) -> Option<&str> {
        self.extra.get(ORIGINAL_QUESTION).and_then(Value::as_str)
    }
}

pub(crate) fn is_captioned(text: &str) -> bool {
    let has = |markers: [&str; 2]| markers.iter().any(|marker| text.contains(marker));
    has(CAPTION_MARKERS) && !has(MEDIA_MARKERS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CHOICES: &str = "Question: Where?\n\nChoices:\nA. left\nB. right";

    fn question(fields: Value) -> Question {
        let mut record = json!({"Question_id": 7, "answer": "B"});
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn captions_are_separated_from_the_question() {
        let prompt = format!("Video content:\n<\nFrame 0: Observe: an elephant\n>\n{CHOICES}");
        for fields in [
            json!({"question": prompt}),
            json!({"question": "Frame 0: elephant. Where?", "original_question": CHOICES}),
        ] {
            let captioned = question(fields);
            assert!(captioned.has_captions());
            assert_eq!(captioned.without_captions(), Some(CHOICES));
        }
    }

    #[test]
    fn captions_that_cannot_be_separated_are_not_returned() {
        for text in ["Frame 0: Observe: a lamp\nWhere?", "Question: x\nVideo content: a lamp"] {
            assert_eq!(question(json!({"question": text})).without_captions(), None);
        }
    }

    #[test]
    fn a_text_that_shows_frames_has_no_captions() {
        for text in ["Be brief. Question: Where?", "Frame 0: Observe: <image>\nQuestion: Where?"] {
            let question = question(json!({"question": text}));
            assert!(!question.has_captions());
            assert_eq!(question.without_captions(), Some(text));
        }
    }
}

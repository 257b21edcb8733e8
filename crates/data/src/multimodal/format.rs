//! Which format a record has.

use serde_json::{Map, Value};

/// The format of a question file with images and videos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleFormat {
    /// This project's: `Question_id`, `question`, `answer`, `images`, `videos`.
    Official,
    /// EasyR1's and the Hugging Face Hub's: `problem` or `question`, `answer`, `images` or `videos`.
    HuggingFace,
    /// ms-swift's: `messages`, `images`, `videos`, `solution`.
    Messages,
    /// verl's: `prompt`, `images`, `reward_model`.
    Verl,
    /// TRL's: `prompt`, `image` or `images`.
    Trl,
    /// LLaVA's and ShareGPT's: `conversations`, `image` or `video`.
    Llava,
    /// Video-R1's: `problem`, `path`, `data_type`, `solution`.
    VideoR1,
}

impl SampleFormat {
    /// The format of a record with these fields.
    pub(super) fn of(fields: &Map<String, Value>) -> Option<Self> {
        let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
        let has_problem = has("problem") || has("question");
        // EgoSchema's and MVBench's records have a `question` too, and readers of their own.
        let is_benchmark = has("q_uid") || has("candidates");
        Some(if has("Question_id") {
            Self::Official
        } else if has("conversations") {
            Self::Llava
        } else if has("messages") {
            Self::Messages
        } else if has("prompt") && has("reward_model") {
            Self::Verl
        } else if has("prompt") {
            Self::Trl
        } else if is_benchmark {
            return None;
        } else if has_problem && has("path") {
            Self::VideoR1
        } else if has_problem {
            Self::HuggingFace
        } else {
            return None;
        })
    }
}

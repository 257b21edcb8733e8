//! What identifies a question.

use std::fmt;

/// What identifies a question: its video and its id. Ids alone repeat between the benchmarks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionKey {
    /// `video_id`, else `videos`; `None` for a question without a video.
    pub video: Option<String>,
    /// `Question_id` as text: `7` and `"7"` are the same id.
    pub id: String,
}

impl fmt::Display for QuestionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.video {
            Some(video) => write!(f, "`video_id` `{video}`, ")?,
            None => f.write_str("no `video_id`, ")?,
        }
        write!(f, "`Question_id` `{}`", self.id)
    }
}

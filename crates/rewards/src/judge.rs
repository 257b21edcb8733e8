//! Who reads the reasoning for the consistency reward.

use crate::error::Result;

/// One task for the judge. It holds the question and the reasoning, never the video or the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgePrompt {
    /// The system message.
    pub system: String,
    /// The user message.
    pub user: String,
}

/// A model that replies to short prompts: the frozen reference in process, or one behind HTTP.
pub trait Judge: Send + Sync {
    /// One reply a prompt, in order; `None` where a single prompt got none after all retries.
    ///
    /// # Errors
    /// The judge cannot work at all.
    fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>>;
}

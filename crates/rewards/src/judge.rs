//! The judge model of the consistency reward.

use std::sync::atomic::AtomicBool;

use crate::error::Result;

/// A prompt for the judge: the question and the reasoning, never the video or the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgePrompt {
    /// The system message.
    pub system: String,
    /// The user message.
    pub user: String,
}

/// A model that answers short prompts: the frozen reference in process, or one over HTTP.
pub trait Judge: Send + Sync {
    /// One reply per prompt, in order; `None` if a prompt failed after all retries.
    ///
    /// # Errors
    /// The judge is unusable.
    fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>>;

    /// As [`Self::reply`]. A judge that waits for a service ends the wait soon after `stop` is set.
    ///
    /// # Errors
    /// As [`Self::reply`], and [`Error::Interrupted`](crate::Error::Interrupted) after `stop` is set.
    fn reply_until(
        &self,
        prompts: &[JudgePrompt],
        _stop: &AtomicBool,
    ) -> Result<Vec<Option<String>>> {
        self.reply(prompts)
    }
}

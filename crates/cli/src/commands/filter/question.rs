//! What the blind model is asked.

use std::borrow::Cow;

use embodied_r_data::system_prompt::Given;

use crate::asked::{BatchPrompt, SeenPrompt};

/// A multiple-choice question without its captions, or with the images and videos that the model sees.
pub(super) struct BlindQuestion<'a> {
    /// Its index in the question set.
    pub(super) index: usize,
    pub(super) id: String,
    pub(super) category: &'a str,
    /// The prompt without captions; identifies it in the journal.
    pub(super) text: Cow<'a, str>,
    /// What the model sees.
    pub(super) seen: Option<SeenPrompt<'a>>,
    /// The correct option.
    pub(super) answer: char,
}

impl BlindQuestion<'_> {
    /// The prompt of the model.
    pub(super) fn prompt(&self) -> BatchPrompt<'_> {
        BatchPrompt {
            index: self.index,
            id: self.id.clone(),
            text: &self.text,
            given: Given::Text,
            seen: self.seen,
        }
    }
}

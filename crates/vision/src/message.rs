//! Turns of a conversation in which there are pictures.

use serde::Serialize;

/// A turn, in the form that the templates of vision-language models take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What they say and show, in order.
    pub content: Vec<Part>,
}

/// A part of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// A place for an image.
    Image,
    /// A place for a video.
    Video,
}

impl Message {
    /// A turn of the user, of so many images and then words.
    #[must_use]
    pub fn user(images: usize, text: impl Into<String>) -> Self {
        let words = Part::Text { text: text.into() };
        let content = std::iter::repeat_n(Part::Image, images).chain([words]).collect();
        Self { role: "user".to_owned(), content }
    }

    /// What frames the conversation.
    #[must_use]
    pub fn system(text: impl Into<String>) -> Self {
        let content = vec![Part::Text { text: text.into() }];
        Self { role: "system".to_owned(), content }
    }
}

//! Chat messages with images.

use serde::Serialize;

/// A chat message in the form that templates of vision-language models take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MultimodalMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The content parts, in order.
    pub content: Vec<MultimodalPart>,
}

/// A content part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MultimodalPart {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image placeholder.
    Image,
    /// A video placeholder.
    Video,
}

impl MultimodalMessage {
    /// A user message of `images` image placeholders and then text.
    #[must_use]
    pub fn user(images: usize, text: impl Into<String>) -> Self {
        let text = MultimodalPart::Text { text: text.into() };
        let content = std::iter::repeat_n(MultimodalPart::Image, images).chain([text]).collect();
        Self { role: "user".to_owned(), content }
    }

    /// A system message.
    #[must_use]
    pub fn system(text: impl Into<String>) -> Self {
        let content = vec![MultimodalPart::Text { text: text.into() }];
        Self { role: "system".to_owned(), content }
    }
}

//! A document of the corpus.

/// A pre-training document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The system prompt of a chat, in which the context is the user's message and the statements are the reply.
    pub system: Option<&'static str>,
    /// The context, such as captions. It is unpredictable and thus masked from the loss.
    pub context: String,
    /// The statements that follow from it; the loss is computed on these.
    pub statements: String,
}

impl Document {
    /// A document that is no chat.
    pub(super) fn plain(context: String, statements: String) -> Self {
        Self { system: None, context, statements }
    }
}

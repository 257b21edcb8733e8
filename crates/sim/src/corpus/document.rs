//! A document of the corpus.

use std::borrow::Cow;

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

    /// The context of a document that is no chat, as it precedes the statements: these start on a new line, or go on with
    /// one that ends with a colon.
    #[must_use]
    pub fn before(&self) -> Cow<'_, str> {
        match self.context.is_empty() || self.context.ends_with(':') {
            true => Cow::Borrowed(&self.context),
            false => Cow::Owned(format!("{}\n", self.context)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_go_on_with_a_line_that_ends_with_a_colon() {
        for (context, before) in
            [("", ""), ("a list", "a list\n"), ("a list\na step:", "a list\na step:")]
        {
            assert_eq!(Document::plain(context.to_owned(), String::new()).before(), before);
        }
    }
}

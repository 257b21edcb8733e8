//! A document of the corpus.

use std::borrow::Cow;
use std::ops::Range;

/// A pretraining document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// The system prompt of a chat, in which the context is the user's message and the statements are the reply.
    pub(crate) system: Option<&'static str>,
    /// The context, such as captions. It is unpredictable and thus masked from the loss.
    pub(crate) context: String,
    /// The statements that follow from it; the loss is computed on these.
    pub(crate) statements: String,
    /// Bytes of the statements that are made up, and thus masked from the loss too.
    pub(crate) masked: Vec<Range<usize>>,
}

impl Document {
    /// A document that is no chat.
    pub(crate) fn plain(context: String, statements: impl Into<Masked>) -> Self {
        let Masked { text, ranges } = statements.into();
        Self { system: None, context, statements: text, masked: ranges }
    }

    /// The context of a document that is no chat, as it precedes the statements: these start on a new line, or go on with
    /// one that ends with a colon.
    pub(crate) fn before(&self) -> Cow<'_, str> {
        match self.context.is_empty() || self.context.ends_with(':') {
            true => Cow::Borrowed(&self.context),
            false => Cow::Owned(format!("{}\n", self.context)),
        }
    }
}

/// Text with the parts of it that are made up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Masked {
    pub(crate) text: String,
    /// Byte ranges in order, each with the space before it.
    pub(crate) ranges: Vec<Range<usize>>,
}

impl From<String> for Masked {
    /// Text of which nothing is made up.
    fn from(text: String) -> Self {
        Self { text, ranges: Vec::new() }
    }
}

impl Masked {
    /// A step of which `value` is made up, the last thing before its colon.
    pub(crate) fn before_colon(text: String, value: &str) -> Self {
        let about = text.split(':').next().unwrap_or_default();
        let start = about.rfind(value);
        Self::at(start, value, text)
    }

    /// Text of which the first occurrence of `value` is made up.
    pub(crate) fn first(text: String, value: &str) -> Self {
        let start = text.find(value);
        Self::at(start, value, text)
    }

    fn at(start: Option<usize>, value: &str, text: String) -> Self {
        let range = |start: usize| {
            let space = usize::from(text[..start].ends_with(' '));
            start - space..start + value.len()
        };
        Self { ranges: start.map(range).into_iter().collect(), text }
    }

    /// Texts with `separator` between them. A space before a part that is made up belongs to the part.
    pub(crate) fn join(parts: impl IntoIterator<Item = Self>, separator: &str) -> Self {
        let mut joined = Self::default();
        for Self { text, ranges } in parts {
            if !joined.text.is_empty() {
                joined.text.push_str(separator);
            }
            let offset = joined.text.len();
            let space = usize::from(joined.text.ends_with(' '));
            joined.ranges.extend(ranges.into_iter().map(|Range { start, end }| {
                let space = if start == 0 { space } else { 0 };
                offset + start - space..offset + end
            }));
            joined.text.push_str(&text);
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_masked_with_the_space_before_it() {
        let lines = ["near 0.10: A.", "up, right: C.", "gripper open.", "cup 0.80, at 0.80: 0.80."];
        let parts = || {
            let [near, phrase, hand, height] = lines.map(str::to_owned);
            let near = Masked::first(near, "0.10");
            let phrase = Masked::before_colon(phrase, "up, right");
            [near, phrase, hand.into(), Masked::before_colon(height, "0.80")]
        };
        for (separator, phrase) in [(" ", " up, right"), ("\n", "up, right")] {
            let Masked { text, ranges } = Masked::join(parts(), separator);
            assert_eq!(text, lines.join(separator));
            let masked: Vec<&str> = ranges.iter().map(|range| &text[range.clone()]).collect();
            assert_eq!(masked, [" 0.10", phrase, " 0.80"]);
            let after = ranges.last().map(|range| &text[range.end..]);
            assert_eq!(after, Some(": 0.80."));
        }
    }

    #[test]
    fn statements_go_on_with_a_line_that_ends_with_a_colon() {
        for (context, before) in
            [("", ""), ("a list", "a list\n"), ("a list\na step:", "a list\na step:")]
        {
            assert_eq!(Document::plain(context.to_owned(), String::new()).before(), before);
        }
    }
}

//! Encodes rendered conversations: the template's special tokens are special, those in messages are plain text.

#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::Serialize;
use serde_json::{Map, Value};
use tokenizers::{Model as _, OffsetType, PreTokenizer as _};

use super::Tokenizer;
use super::content::{NoMark, unused_mark, with_marks};
use crate::chat_template::GenerationPrompt;
use crate::error::{Error, Result};

/// A rendered conversation.
///
/// It knows which parts come from messages, so that a special token in a message, such as an image placeholder or the
/// end of a turn, is text for [`Tokenizer::encode_chat`] and not a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenderedChat {
    text: String,
    /// Ascending byte offsets in `text` across which no special token extends.
    breaks: Vec<usize>,
}

impl RenderedChat {
    /// Reads a text in which `mark` stands at each break.
    fn from_marked(marked: &str, mark: char) -> Self {
        let mut chat = Self::default();
        let mut parts = marked.split(mark);
        chat.text.extend(parts.next());
        for part in parts {
            chat.breaks.push(chat.text.len());
            chat.text.push_str(part);
        }
        chat
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Ascending byte offsets across which no special token extends.
    pub(super) fn breaks(&self) -> &[usize] {
        &self.breaks
    }

    /// The conversation with the special tokens `tokens`, where the template wrote them, replaced one after the other by
    /// what `replacement` gives, and how many there are. From the first `None` on they stay. A replacement has no text of
    /// messages.
    pub fn replace_special(
        &self,
        tokens: &str,
        mut replacement: impl FnMut() -> Option<String>,
    ) -> (Self, usize) {
        let is_written = |start: usize| {
            let end = start + tokens.len();
            let next = self.breaks.partition_point(|at| *at <= start);
            self.breaks.get(next).is_none_or(|at| *at >= end)
        };
        let found = self.text.match_indices(tokens).map(|(start, _)| start);
        let found: Vec<usize> = found.filter(|start| is_written(*start)).collect();
        let (mut replaced, mut done) = (Self::default(), 0);
        for start in &found {
            let Some(text) = replacement() else { break };
            replaced.push(self, done..*start);
            replaced.text.push_str(&text);
            done = start + tokens.len();
        }
        replaced.push(self, done..self.text.len());
        (replaced, found.len())
    }

    /// Appends a part of another conversation.
    fn push(&mut self, other: &Self, part: Range<usize>) {
        let shift = self.text.len();
        let breaks = other.breaks.iter().filter(|at| (part.start..=part.end).contains(at));
        self.breaks.extend(breaks.map(|at| at - part.start + shift));
        self.text.push_str(&other.text[part]);
    }

    /// What follows `prefix`, if the conversation begins with it.
    pub fn strip_prefix(&self, prefix: &Self) -> Option<Self> {
        let text = self.text.strip_prefix(&prefix.text)?.to_owned();
        let start = prefix.text.len();
        let breaks = self.breaks.iter().filter_map(|at| at.checked_sub(start)).collect();
        Some(Self { text, breaks })
    }
}

impl From<String> for RenderedChat {
    /// A text whose special tokens are all special.
    fn from(text: String) -> Self {
        Self { text, breaks: Vec::new() }
    }
}

impl Tokenizer {
    /// Renders a conversation with the model's chat template. Messages are [`ChatMessage`]s or, for multimodal
    /// templates, objects with a `role` and a list of parts as `content`.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], or [`Error::ChatTemplate`] if the template rejects the conversation.
    ///
    /// [`ChatMessage`]: crate::tokenizer::ChatMessage
    pub fn apply_chat_template(
        &self,
        messages: &[impl Serialize],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat> {
        self.apply_chat_template_with(messages, generation, &Map::new())
    }

    /// [`Self::apply_chat_template`] with further variables for the template, which replace those of
    /// [`Self::with_chat_template_kwargs`] of the same names.
    ///
    /// # Errors
    /// As [`Self::apply_chat_template`].
    pub fn apply_chat_template_with(
        &self,
        messages: &[impl Serialize],
        generation: GenerationPrompt,
        variables: &Map<String, Value>,
    ) -> Result<RenderedChat> {
        let none = || Error::NoChatTemplate { dir: self.dir.clone() };
        let template = self.template.as_ref().ok_or_else(none)?;
        let messages = serde_json::to_value(messages).map_err(Error::json(&self.dir))?;
        let mut all = self.template_kwargs.variables().clone();
        all.extend(variables.clone());
        let mut input = Value::Array(vec![messages, Value::Object(all)]);
        let failed = |fault: NoMark| Error::tokenizer(&self.dir)(fault.into());
        let mark = self.contents.mark(&mut input).map_err(failed)?;
        let text = template.render(&input[0], generation, &input[1])?;
        Ok(match mark {
            Some(mark) => RenderedChat::from_marked(&text, mark),
            None => text.into(),
        })
    }

    /// Encodes a rendered conversation. None is added: chat templates include their special tokens.
    ///
    /// Special tokens that the template wrote are recognized. In the text of messages they are plain text, as with
    /// `split_special_tokens=True` in `transformers`; added tokens that are not special, such as the `<think>` of
    /// reasoning models, are tokens there too.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text cannot be encoded.
    pub fn encode_chat(&self, chat: &RenderedChat) -> Result<Vec<u32>> {
        self.encode_broken(&chat.text, &chat.breaks)
    }

    /// Encodes a text in which no special token extends across `breaks`.
    pub(super) fn encode_broken(&self, text: &str, breaks: &[usize]) -> Result<Vec<u32>> {
        if breaks.is_empty() {
            return self.encode(text);
        }
        let failed = |fault| Error::tokenizer(&self.dir)(fault);
        let mark = unused_mark([text]).ok_or(NoMark).map_err(|fault| failed(fault.into()))?;
        self.encode_marked(&with_marks(text, breaks, mark), mark).map_err(failed)
    }

    /// The encoding of a text without `mark`, which keeps the added tokens that it interrupts from being recognized.
    fn encode_marked(&self, marked: &str, mark: char) -> tokenizers::Result<Vec<u32>> {
        // The stages of `tokenizers::Tokenizer::encode`, with the removal of the marks after the first.
        let (inner, vocabulary) = (&self.inner, self.inner.get_added_vocabulary());
        let mut pieces = vocabulary.extract_and_normalize(inner.get_normalizer(), marked);
        pieces.normalize(|piece| {
            piece.filter(|character| character != mark);
            Ok(())
        })?;
        if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| inner.get_model().tokenize(piece.get()))?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// A text in which no special token is recognized, such as a message without its template.
    pub fn plain(&self, text: &str) -> RenderedChat {
        RenderedChat { text: text.to_owned(), breaks: self.contents.breaks(text) }
    }
}

//! Text out of token ids as they are drawn.
//!
//! What is given out never changes afterwards: half a character, and text that may yet become a stop
//! string, wait inside until the next tokens decide.

mod decoding;
mod stops;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tokenizer::{Special, Tokenizer};
use decoding::Decoding;
use stops::{Stops, Watch};

/// Token ids in, text out, piece by piece.
///
/// Without stop strings the pieces together are [`Tokenizer::decode`] of all ids, to the byte. With
/// them the text ends before the stop string that is complete first; between those that end at the
/// same place the longest counts. How the text is cut into tokens changes nothing.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    special: Special,
    decoding: Decoding,
    stops: Stops,
    min_tokens: usize,
    tokens: usize,
}

impl TextStream {
    /// A stream before its first token.
    pub fn new(tokenizer: Arc<Tokenizer>, special: Special) -> Self {
        let decoding = Decoding::of(&tokenizer);
        let stops = Stops::default();
        Self { tokenizer, special, decoding, stops, min_tokens: 0, tokens: 0 }
    }

    /// The same, ended by any of `strings`; those that are complete within the first `min_tokens`
    /// tokens do not count. Empty strings end nothing.
    #[must_use]
    pub fn with_stops(mut self, strings: Vec<String>, min_tokens: usize) -> Self {
        self.stops = Stops::new(strings);
        self.min_tokens = min_tokens;
        self
    }

    /// Takes a token and gives the text that is certain now; nothing once a stop string has ended
    /// the text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder refuses the token.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.stopped_by().is_some() {
            return Ok(String::new());
        }
        self.tokens += 1;
        let text = match self.token(id) {
            Some(token) => self.decoding.push(&self.tokenizer, token)?,
            None => String::new(),
        };
        let early = self.tokens <= self.min_tokens;
        Ok(self.stops.push(&text, if early { Watch::Off } else { Watch::On }))
    }

    /// Ends the text and gives what still waited; half a character becomes `\u{fffd}`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder refuses the last tokens.
    pub fn finish(&mut self) -> Result<String> {
        if self.stopped_by().is_some() {
            return Ok(String::new());
        }
        let text = self.decoding.finish(&self.tokenizer)?;
        let early = self.tokens <= self.min_tokens;
        let mut last = self.stops.push(&text, if early { Watch::Off } else { Watch::On });
        last.push_str(&self.stops.release());
        Ok(last)
    }

    /// The stop string that ended the text.
    pub fn stopped_by(&self) -> Option<&str> {
        self.stops.found()
    }

    /// Text that is decoded and waits, as it may become a stop string.
    pub fn held(&self) -> &str {
        self.stops.held()
    }

    /// The token as it stands in the vocabulary, if it has any text.
    fn token(&self, id: u32) -> Option<String> {
        let inner = &self.tokenizer.inner;
        let token = inner.id_to_token(id)?;
        let hidden =
            self.special == Special::Skip && inner.get_added_vocabulary().is_special_token(&token);
        (!hidden).then_some(token)
    }
}

impl Tokenizer {
    /// The bytes of one token within a text, its leading space included; they may be part of a
    /// character. Special tokens are written out, ids beyond the vocabulary have none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder refuses the token.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>> {
        match self.inner.id_to_token(id) {
            Some(token) => decoding::token_bytes(self, token),
            None => Ok(Vec::new()),
        }
    }

    /// The text of tokens as they stand in the vocabulary.
    fn join(&self, tokens: Vec<String>) -> Result<String> {
        use tokenizers::Decoder as _;
        match self.inner.get_decoder() {
            // Some decoders count on a first token.
            _ if tokens.is_empty() => Ok(String::new()),
            Some(decoder) => decoder.decode(tokens).map_err(Error::tokenizer(&self.dir)),
            None => Ok(tokens.join(" ")),
        }
    }
}

//! Incremental detokenization with stop strings, for streaming.
//!
//! Emitted text never changes: incomplete characters, and text that may become a stop string, are buffered
//! until later tokens decide.

mod decoding;
mod stop_strings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tokenizer::{SpecialTokens, Tokenizer};
use decoding::IncrementalDecoder;
use stop_strings::{StopCheck, StopStrings};

/// An incremental detokenizer.
///
/// Without stop strings, the concatenated output equals [`Tokenizer::decode`] of all ids. With stop strings,
/// the text ends before the one that completes first; of several that end at the same position, the longest
/// counts. The result does not depend on token boundaries.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    special: SpecialTokens,
    decoder: IncrementalDecoder,
    stops: StopStrings,
    stop_ids: Vec<u32>,
    min_tokens: usize,
    tokens: usize,
}

impl TextStream {
    /// An empty stream.
    pub fn new(tokenizer: Arc<Tokenizer>, special: SpecialTokens) -> Self {
        let decoder = IncrementalDecoder::of(&tokenizer);
        let stops = StopStrings::default();
        Self { tokenizer, special, decoder, stops, stop_ids: Vec::new(), min_tokens: 0, tokens: 0 }
    }

    /// Leaves out the tokens that end a completion, even if they have a text.
    #[must_use]
    pub fn with_stop_ids(mut self, ids: Vec<u32>) -> Self {
        self.stop_ids = ids;
        self
    }

    /// Stops at any of `strings`, except those that complete within the first `min_tokens` tokens. Empty
    /// strings are ignored.
    #[must_use]
    pub fn with_stop_strings(mut self, strings: Vec<String>, min_tokens: usize) -> Self {
        self.stops = StopStrings::new(strings);
        self.min_tokens = min_tokens;
        self
    }

    /// Adds a token and returns the newly completed text; empty after a stop string and for a stop token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.stop_string().is_some() || self.stop_ids.contains(&id) {
            return Ok(String::new());
        }
        self.tokens += 1;
        let text = match self.token(id) {
            Some(token) => self.decoder.push(&self.tokenizer, token)?,
            None => String::new(),
        };
        let early = self.tokens <= self.min_tokens;
        Ok(self.stops.push(&text, if early { StopCheck::Disabled } else { StopCheck::Enabled }))
    }

    /// Ends the stream and returns the buffered text; an incomplete character becomes `\u{fffd}`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn finish(&mut self) -> Result<String> {
        if self.stop_string().is_some() {
            return Ok(String::new());
        }
        let text = self.decoder.finish(&self.tokenizer)?;
        let early = self.tokens <= self.min_tokens;
        let mut last =
            self.stops.push(&text, if early { StopCheck::Disabled } else { StopCheck::Enabled });
        last.push_str(&self.stops.release());
        Ok(last)
    }

    /// The stop string that ended the text.
    pub fn stop_string(&self) -> Option<&str> {
        self.stops.found()
    }

    /// Decoded text that is buffered because it may become a stop string.
    pub fn pending(&self) -> &str {
        self.stops.pending()
    }

    /// The token's vocabulary entry, unless it is unknown or a skipped special token.
    fn token(&self, id: u32) -> Option<String> {
        let inner = &self.tokenizer.inner;
        let token = inner.id_to_token(id)?;
        let hidden = self.special == SpecialTokens::Skip
            && inner.get_added_vocabulary().is_special_token(&token);
        (!hidden).then_some(token)
    }
}

impl Tokenizer {
    /// The bytes of one token within a text, including its leading space; they may be an incomplete
    /// character. Special tokens are spelled out; ids beyond the vocabulary have no bytes.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>> {
        match self.inner.id_to_token(id) {
            Some(token) => decoding::token_bytes(self, token),
            None => Ok(Vec::new()),
        }
    }

    /// Decodes vocabulary entries.
    fn join(&self, tokens: Vec<String>) -> Result<String> {
        use tokenizers::Decoder as _;
        match self.inner.get_decoder() {
            // Some decoders require at least one token.
            _ if tokens.is_empty() => Ok(String::new()),
            Some(decoder) => decoder.decode(tokens).map_err(Error::tokenizer(&self.dir)),
            None => Ok(tokens.join(" ")),
        }
    }
}

//! Incremental decoding of tokens, equal to decoding all at once.

use std::collections::HashMap;
use std::sync::LazyLock;

use tokenizers::DecoderWrapper;

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Replaces invalid UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// The decoding state.
#[derive(Debug)]
pub(super) enum IncrementalDecoder {
    /// Byte-level tokens: the text is the concatenation of their bytes.
    Bytes(Utf8),
    /// Any other decoder, such as sentencepiece's.
    Window(Window),
}

impl IncrementalDecoder {
    /// The state for the tokenizer's decoder.
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        match is_byte_level(tokenizer) {
            true => Self::Bytes(Utf8::default()),
            false => Self::Window(Window::default()),
        }
    }

    /// Adds a vocabulary entry and returns the newly completed text.
    pub(super) fn push(&mut self, tokenizer: &Tokenizer, token: String) -> Result<String> {
        match self {
            Self::Bytes(utf8) => Ok(utf8.push(&byte_level(&token))),
            Self::Window(window) => window.push(tokenizer, token),
        }
    }

    /// Returns the remaining text.
    pub(super) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        match self {
            Self::Bytes(utf8) => Ok(utf8.finish()),
            Self::Window(window) => window.finish(tokenizer),
        }
    }
}

fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
}

/// The bytes of one token within a text.
pub(super) fn token_bytes(tokenizer: &Tokenizer, token: String) -> Result<Vec<u8>> {
    if is_byte_level(tokenizer) {
        return Ok(byte_level(&token));
    }
    if let Some(byte) = fallback_byte(&token) {
        return Ok(vec![byte]);
    }
    // Decoders treat the first token of a text specially, so decode it as the second.
    let first = tokenizer.join(vec![token.clone()])?;
    let both = tokenizer.join(vec![token.clone(), token])?;
    Ok(both.strip_prefix(&first).unwrap_or(&first).as_bytes().to_vec())
}

/// The byte of a byte-fallback token such as `<0xE4>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The bytes of a byte-level token; a token with a character outside of GPT-2's alphabet is plain text.
fn byte_level(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|c| BYTES.get(&c).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's byte alphabet: printable bytes map to themselves, the others to code points from 256 on.
static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (plain, other): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(printable);
    let numbered = ('\u{100}'..).zip(other);
    plain.into_iter().map(|byte| (char::from(byte), byte)).chain(numbered).collect()
});

/// Incremental `String::from_utf8_lossy`.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The bytes of an incomplete character.
    rest: Vec<u8>,
}

impl Utf8 {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.rest.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_the_end = done + invalid.len() == self.rest.len();
            if invalid.is_empty() || (at_the_end && is_beginning(invalid)) {
                break;
            }
            text.push(REPLACEMENT);
            done += invalid.len();
        }
        self.rest.drain(..done);
        text
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

/// Whether these bytes are the start of a character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// A sliding window: the last tokens are decoded with and without the newest ones; the difference is the new text.
///
/// A token's text depends at most on whether text precedes it and, for byte-fallback tokens, on the whole run
/// of bytes. So the last tokens represent the preceding text, and a run of bytes is buffered until it ends.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The last tokens whose text has been emitted.
    before: Vec<String>,
    /// Tokens whose text has not been emitted.
    fresh: Vec<String>,
}

impl Window {
    fn push(&mut self, tokenizer: &Tokenizer, token: String) -> Result<String> {
        let is_byte = fallback_byte(&token).is_some();
        self.fresh.push(token);
        if is_byte {
            return Ok(String::new());
        }
        let (before, all) = self.texts(tokenizer)?;
        let text = match all.strip_prefix(&before) {
            Some(text) if !text.ends_with(REPLACEMENT) => text.to_owned(),
            _ => return Ok(String::new()),
        };
        self.before.append(&mut self.fresh);
        self.shorten(tokenizer)?;
        Ok(text)
    }

    fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let (before, all) = self.texts(tokenizer)?;
        self.before.append(&mut self.fresh);
        let same = before.chars().zip(all.chars()).take_while(|(a, b)| a == b);
        Ok(all.chars().skip(same.count()).collect())
    }

    /// The text without and with the newest tokens.
    fn texts(&self, tokenizer: &Tokenizer) -> Result<(String, String)> {
        let before = tokenizer.join(self.before.clone())?;
        Ok((before, tokenizer.join([self.before.as_slice(), &self.fresh].concat())?))
    }

    /// Shortens the window to the fewest last tokens with text.
    fn shorten(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        for start in (0..self.before.len()).rev() {
            if !tokenizer.join(self.before[start..].to_vec())?.is_empty() {
                self.before.drain(..start);
                break;
            }
        }
        Ok(())
    }
}

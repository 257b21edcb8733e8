//! Encodes texts of any length in bounded memory: piece by piece, and no further than a limit.
//!
//! The tokenizer library takes about 150 bytes per byte of text while it encodes, so a long text that does not fit the
//! context must not be encoded as a whole, only to be refused.

#[cfg(test)]
mod tests;

use super::text_bounds::TextBounds;
use super::{RenderedChat, Tokenizer};
use crate::error::Result;

/// Texts are cut after about this many bytes.
const PIECE_BYTES: usize = 1 << 16;

/// The ids of a text, unless they are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundedIds {
    /// The ids.
    Ids(Vec<u32>),
    /// The text has more tokens than allowed.
    TooMany {
        /// It has this many or more.
        at_least: usize,
    },
}

impl Tokenizer {
    /// [`Tokenizer::encode`] for a text that may be too long: up to `most` ids.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_at_most(&self, text: &str, most: usize) -> Result<BoundedIds> {
        self.encode_pieces(text, &[], most, PIECE_BYTES)
    }

    /// [`Tokenizer::encode_chat`] for a conversation that may be too long: up to `most` ids.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_chat`].
    pub fn encode_chat_at_most(&self, chat: &RenderedChat, most: usize) -> Result<BoundedIds> {
        self.encode_pieces(chat.text(), chat.breaks(), most, PIECE_BYTES)
    }

    /// [`Tokenizer::encode_with_special_tokens`] for a text that may be too long: up to `most` ids.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_special_tokens_at_most(
        &self,
        text: &str,
        most: usize,
    ) -> Result<BoundedIds> {
        let Some((before, after)) = self.added_around()? else {
            let at_least = self.text_bounds().least_tokens(text);
            if at_least > most {
                return Ok(BoundedIds::TooMany { at_least });
            }
            return Ok(at_most(self.encode_with_special_tokens(text)?, most));
        };
        Ok(match self.encode_at_most(text, most)? {
            BoundedIds::Ids(ids) => at_most([before, ids, after].concat(), most),
            too_many @ BoundedIds::TooMany { .. } => too_many,
        })
    }

    /// The special tokens that the post-processor adds before and after a text; `None` if that depends on the text.
    fn added_around(&self) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
        const TEXT: &str = "a";
        let (plain, all) = (self.encode(TEXT)?, self.encode_with_special_tokens(TEXT)?);
        let start = all.windows(plain.len().max(1)).position(|ids| ids == plain);
        Ok(start.map(|start| (all[..start].to_vec(), all[start + plain.len()..].to_vec())))
    }

    /// `breaks` are those of a [`RenderedChat`].
    fn encode_pieces(
        &self,
        text: &str,
        breaks: &[usize],
        most: usize,
        piece_bytes: usize,
    ) -> Result<BoundedIds> {
        let bounds = self.text_bounds();
        let (mut ids, mut rest, mut breaks) = (Vec::new(), text, breaks);
        loop {
            let at_least = ids.len() + bounds.least_tokens(rest);
            if at_least > most {
                return Ok(BoundedIds::TooMany { at_least });
            }
            if rest.is_empty() {
                return Ok(BoundedIds::Ids(ids));
            }
            let (piece, after) = bounds.split(rest, piece_bytes);
            let start = text.len() - rest.len();
            let count = breaks.partition_point(|at| *at < start + piece.len());
            let inside: Vec<usize> = breaks[..count].iter().map(|at| at - start).collect();
            ids.extend(self.encode_broken(piece, &inside)?);
            (rest, breaks) = (after, &breaks[count..]);
        }
    }

    fn text_bounds(&self) -> &TextBounds {
        let token_bytes = |id| self.token_bytes(id).ok();
        self.text_bounds.get_or_init(|| TextBounds::of(&self.inner, token_bytes))
    }
}

fn at_most(ids: Vec<u32>, most: usize) -> BoundedIds {
    match ids.len() > most {
        true => BoundedIds::TooMany { at_least: ids.len() },
        false => BoundedIds::Ids(ids),
    }
}

//! Log-probabilities of a prompt's tokens.

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Result, TokenLogprobs};

use super::{Logprob, TopLogprob};

/// The tokens of a prompt with their log-probabilities.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PromptLogprobs {
    /// The text of the first token, which has no probability.
    pub(crate) first: String,
    pub(crate) others: Vec<Logprob>,
}

impl PromptLogprobs {
    /// Of the tokens `ids`, with the log-probabilities of all but the first.
    ///
    /// # Errors
    /// The tokenizer rejects a token.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        ids: &[u32],
        logprobs: &[TokenLogprobs],
    ) -> Result<Self> {
        let Some((first, ids)) = ids.split_first() else {
            return Ok(Self { first: String::new(), others: Vec::new() });
        };
        let first = tokenizer.token_bytes(*first)?;
        let mut begun = characters(&first);
        let mut others = Vec::with_capacity(ids.len());
        for (id, TokenLogprobs { logprob, top_logprobs }) in ids.iter().zip(logprobs) {
            let token = TopLogprob::of(tokenizer, *id, *logprob)?;
            // A token that continues a character begins with it.
            let offset = match token.bytes.first() {
                Some(byte) if is_continuation(*byte) => begun.saturating_sub(1),
                _ => begun,
            };
            begun += characters(&token.bytes);
            let top =
                top_logprobs.iter().map(|(id, logprob)| TopLogprob::of(tokenizer, *id, *logprob));
            others.push(Logprob { top: top.collect::<Result<_>>()?, token, offset, end: begun });
        }
        Ok(Self { first: String::from_utf8_lossy(&first).into_owned(), others })
    }
}

/// The characters that begin in these bytes.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| !is_continuation(**byte)).count()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

//! One choice: turns tokens into text and log-probabilities.

mod prompt;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{FinishReason, Result, SampledToken, TextStream, TokenLogprobs};
use serde_json::{Value, json};

use crate::request::Settings;
pub(crate) use prompt::PromptLogprobs;

/// Replaces a log-probability of minus infinity, which JSON cannot represent; vLLM's value.
const MIN_LOGPROB: f32 = -9999.0;

/// A choice during generation.
#[derive(Debug)]
pub(crate) struct Choice {
    tokenizer: Arc<Tokenizer>,
    settings: Arc<Settings>,
    text: TextStream,
    /// Generated tokens.
    tokens: usize,
    /// Characters returned so far.
    chars: usize,
    /// Tokens whose text is not returned yet.
    pending: VecDeque<Logprob>,
    last: Option<u32>,
    ended: bool,
}

/// A delta of a choice.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<Logprob>,
    pub(crate) end: Option<End>,
}

/// Why a choice ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    /// `stop` or `length`.
    pub(crate) reason: &'static str,
    /// The requested stop string or stop id that matched (`stop_reason`).
    pub(crate) matched: Value,
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logprob {
    pub(crate) token: TopLogprob,
    /// The most likely tokens, in descending order.
    pub(crate) top: Vec<TopLogprob>,
    /// Characters of the choice before the token.
    pub(crate) offset: usize,
    end: usize,
}

/// A token's bytes and log-probability.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopLogprob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: f32,
}

impl TopLogprob {
    fn of(tokenizer: &Tokenizer, id: u32, logprob: f32) -> Result<Self> {
        Ok(Self { bytes: tokenizer.token_bytes(id)?, logprob: logprob.max(MIN_LOGPROB) })
    }

    /// The token's text; an incomplete character becomes `\u{fffd}`.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Choice {
    /// A choice before its first token.
    pub(crate) fn new(tokenizer: &Arc<Tokenizer>, settings: &Arc<Settings>) -> Self {
        let text = TextStream::new(tokenizer.clone(), settings.special)
            .with_stop_ids(settings.sampling.stop_ids.clone())
            .with_stop_strings(settings.stop.clone(), settings.sampling.min_new_tokens);
        Self {
            tokenizer: tokenizer.clone(),
            settings: settings.clone(),
            text,
            tokens: 0,
            chars: 0,
            pending: VecDeque::new(),
            last: None,
            ended: false,
        }
    }

    /// Appends a token; the delta has an end if a stop string is complete.
    ///
    /// # Errors
    /// The tokenizer rejects the token.
    pub(crate) fn take(&mut self, token: SampledToken) -> Result<Piece> {
        if self.ended || self.is_empty() {
            return Ok(Piece::default());
        }
        self.tokens += 1;
        self.last = Some(token.id);
        let before = self.decoded();
        let text = self.text.push(token.id)?;
        self.chars += text.chars().count();
        if let Some(report) = &token.logprobs {
            let logprob = self.logprob(token.id, report, before)?;
            self.pending.push_back(logprob);
        }
        let Some(stop) = self.text.stop_string() else {
            let chars = self.chars;
            return Ok(Piece { text, logprobs: self.release(|of| of.end <= chars), end: None });
        };
        self.ended = true;
        let end = Some(End { reason: "stop", matched: json!(stop) });
        let chars = self.chars;
        Ok(Piece { text, logprobs: self.release(|of| of.offset < chars), end })
    }

    /// Ends the choice because the engine has finished it; returns nothing if a stop string ended it before.
    ///
    /// # Errors
    /// The tokenizer rejects the last tokens.
    pub(crate) fn finish(&mut self, finish: FinishReason) -> Result<Option<Piece>> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(None);
        }
        if self.is_empty() {
            let end = Some(End { reason: "length", matched: Value::Null });
            return Ok(Some(Piece { end, ..Piece::default() }));
        }
        let mut text = self.text.finish()?;
        let end = match (finish, self.text.stop_string(), self.last) {
            (_, Some(stop), _) => End { reason: "stop", matched: json!(stop) },
            (FinishReason::Stop, None, Some(id)) if self.settings.stop_token_ids.contains(&id) => {
                End { reason: "stop", matched: json!(id) }
            }
            (FinishReason::Stop, None, _) => End { reason: "stop", matched: Value::Null },
            (FinishReason::Length, None, _) => End { reason: "length", matched: Value::Null },
        };
        let logprobs = self.release(|_| true);
        text.shrink_to_fit();
        Ok(Some(Piece { text, logprobs, end: Some(end) }))
    }

    /// Whether the request is for no token; the engine samples one all the same.
    fn is_empty(&self) -> bool {
        self.settings.max_tokens == Some(0)
    }

    /// Generated tokens, including the stop token.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Decoded characters, returned or held back.
    fn decoded(&self) -> usize {
        self.chars + self.text.pending().chars().count()
    }

    /// The log-probabilities of the last token, before which `before` characters were decoded.
    fn logprob(&self, id: u32, report: &TokenLogprobs, before: usize) -> Result<Logprob> {
        let entry = |(id, logprob): (u32, f32)| TopLogprob::of(&self.tokenizer, id, logprob);
        let top = report.top_logprobs.iter().copied().map(entry).collect::<Result<_>>()?;
        let token = entry((id, report.logprob))?;
        let end = self.decoded();
        // Characters of earlier tokens that this one completes precede its own.
        let own = std::str::from_utf8(&token.bytes).map_or(0, |text| text.chars().count());
        let offset = match end.saturating_sub(before) {
            new if own > 0 && new >= own => end - own,
            _ => before,
        };
        Ok(Logprob { token, top, offset, end })
    }

    /// Removes the leading pending tokens that are `ready`.
    fn release(&mut self, ready: impl Fn(&Logprob) -> bool) -> Vec<Logprob> {
        std::iter::from_fn(|| self.pending.pop_front_if(|logprob| ready(logprob))).collect()
    }
}

//! One choice: tokens in, text and log-probabilities out.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{Finish, Report, Result, TextStream, Token};
use serde_json::{Value, json};

use crate::request::Settings;

/// Told in place of a log-probability of minus infinity, which JSON cannot say; vLLM's number.
const LEAST_LOGPROB: f32 = -9999.0;

/// A choice that is being drawn.
#[derive(Debug)]
pub(crate) struct Choice {
    tokenizer: Arc<Tokenizer>,
    settings: Arc<Settings>,
    text: TextStream,
    /// Tokens drawn.
    tokens: usize,
    /// Letters given out.
    letters: usize,
    /// Tokens whose text is not given out yet.
    pending: VecDeque<Logprob>,
    last: Option<u32>,
    ended: bool,
}

/// What is new of a choice.
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
    /// The stop string or stop id that was asked for and met.
    pub(crate) met: Value,
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logprob {
    pub(crate) token: Likely,
    /// The likeliest tokens, the likeliest first.
    pub(crate) top: Vec<Likely>,
    /// Letters of the choice before the token.
    pub(crate) offset: usize,
    end: usize,
}

/// A token as it is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Likely {
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: f32,
}

impl Likely {
    /// The token's text; bytes that are part of a character become `\u{fffd}`.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Choice {
    /// A choice before its first token.
    pub(crate) fn new(tokenizer: &Arc<Tokenizer>, settings: &Arc<Settings>) -> Self {
        let text = TextStream::new(tokenizer.clone(), settings.special)
            .with_stops(settings.stop.clone(), settings.sampling.min_new_tokens);
        Self {
            tokenizer: tokenizer.clone(),
            settings: settings.clone(),
            text,
            tokens: 0,
            letters: 0,
            pending: VecDeque::new(),
            last: None,
            ended: false,
        }
    }

    /// Takes a token; the piece has an end if a stop string is complete.
    ///
    /// # Errors
    /// The tokenizer refuses the token.
    pub(crate) fn take(&mut self, token: Token) -> Result<Piece> {
        if self.ended {
            return Ok(Piece::default());
        }
        self.tokens += 1;
        self.last = Some(token.id);
        let before = self.decoded();
        // A stop token ends the text and is no part of it.
        let text = match self.settings.sampling.stop_ids.contains(&token.id) {
            true => String::new(),
            false => self.text.push(token.id)?,
        };
        self.letters += text.chars().count();
        if let Some(report) = &token.report {
            let logprob = self.logprob(token.id, report, before)?;
            self.pending.push_back(logprob);
        }
        let Some(stop) = self.text.stopped_by() else {
            let letters = self.letters;
            return Ok(Piece { text, logprobs: self.release(|of| of.end <= letters), end: None });
        };
        self.ended = true;
        let end = Some(End { reason: "stop", met: json!(stop) });
        let letters = self.letters;
        Ok(Piece { text, logprobs: self.release(|of| of.offset < letters), end })
    }

    /// Ends the choice where the engine has ended it; gives nothing if a stop string has before.
    ///
    /// # Errors
    /// The tokenizer refuses the last tokens.
    pub(crate) fn finish(&mut self, finish: Finish) -> Result<Option<Piece>> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(None);
        }
        let mut text = self.text.finish()?;
        let end = match (finish, self.text.stopped_by(), self.last) {
            (_, Some(stop), _) => End { reason: "stop", met: json!(stop) },
            (Finish::Stop, None, Some(id)) if self.settings.stop_token_ids.contains(&id) => {
                End { reason: "stop", met: json!(id) }
            }
            (Finish::Stop, None, _) => End { reason: "stop", met: Value::Null },
            (Finish::Length, None, _) => End { reason: "length", met: Value::Null },
        };
        let logprobs = self.release(|_| true);
        text.shrink_to_fit();
        Ok(Some(Piece { text, logprobs, end: Some(end) }))
    }

    /// Tokens drawn, the stop token included.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Letters decoded, whether given out or held.
    fn decoded(&self) -> usize {
        self.letters + self.text.held().chars().count()
    }

    /// What is told of the last token, before which `before` letters were decoded.
    fn logprob(&self, id: u32, report: &Report, before: usize) -> Result<Logprob> {
        let likely = |(id, logprob): (u32, f32)| {
            let bytes = self.tokenizer.token_bytes(id)?;
            Ok(Likely { bytes, logprob: logprob.max(LEAST_LOGPROB) })
        };
        let top = report.top.iter().copied().map(likely).collect::<Result<_>>()?;
        let token = likely((id, report.logprob))?;
        let end = self.decoded();
        // What the token completes of the tokens before it stands before its own letters.
        let own = std::str::from_utf8(&token.bytes).map_or(0, |text| text.chars().count());
        let offset = match end.saturating_sub(before) {
            new if own > 0 && new >= own => end - own,
            _ => before,
        };
        Ok(Logprob { token, top, offset, end })
    }

    /// The first of the pending tokens, as long as they are `ready`.
    fn release(&mut self, ready: impl Fn(&Logprob) -> bool) -> Vec<Logprob> {
        std::iter::from_fn(|| self.pending.pop_front_if(|logprob| ready(logprob))).collect()
    }
}

//! Choices of `POST /v1/completions`.

use serde_json::{Map, Value, json};

use super::finish_reason::finish_reason;
use crate::choice::{Logprob, Piece, PromptLogprobs};

/// A prompt that precedes its choices.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EchoedPrompt {
    /// Its text.
    pub(crate) text: String,
    pub(crate) logprobs: EchoedLogprobs,
}

/// The log-probabilities of an echoed prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum EchoedLogprobs {
    /// They are not requested.
    #[default]
    None,
    /// They are known when the prompt is computed.
    Pending,
    Known(PromptLogprobs),
}

impl EchoedPrompt {
    fn known(&self) -> Option<&PromptLogprobs> {
        match &self.logprobs {
            EchoedLogprobs::Known(logprobs) => Some(logprobs),
            EchoedLogprobs::None | EchoedLogprobs::Pending => None,
        }
    }
}

/// A whole choice, after `prompt` if that is echoed.
pub(super) fn whole(index: usize, prompt: Option<&EchoedPrompt>, choice: &Piece) -> Value {
    let (reason, matched) = finish_reason(choice.end.as_ref());
    let echo = prompt.map_or("", |prompt| &prompt.text);
    let known = prompt.and_then(EchoedPrompt::known);
    json!({"index": index, "text": format!("{echo}{}", choice.text),
        "logprobs": logprobs(known, &choice.logprobs, chars(prompt)),
        "finish_reason": reason, "stop_reason": matched})
}

/// The chunk with the prompt of a choice.
pub(super) fn opening(index: usize, prompt: &EchoedPrompt) -> Value {
    json!({"index": index, "text": prompt.text,
        "logprobs": logprobs(prompt.known(), &[], 0), "finish_reason": null,
        "stop_reason": null})
}

/// The chunk with a piece of a choice, after `prompt` if that is echoed.
pub(super) fn delta(index: usize, prompt: Option<&EchoedPrompt>, piece: &Piece) -> Value {
    let (reason, matched) = finish_reason(piece.end.as_ref());
    json!({"index": index, "text": piece.text,
        "logprobs": logprobs(None, &piece.logprobs, chars(prompt)), "finish_reason": reason,
        "stop_reason": matched})
}

fn chars(prompt: Option<&EchoedPrompt>) -> usize {
    prompt.map_or(0, |prompt| prompt.text.chars().count())
}

/// The log-probabilities of a prompt, if it is echoed, and of the `tokens` that follow its `chars` characters.
fn logprobs(prompt: Option<&PromptLogprobs>, tokens: &[Logprob], chars: usize) -> Value {
    if tokens.is_empty() && prompt.is_none() {
        return Value::Null;
    }
    let [mut texts, mut own, mut tops, mut offsets] = [const { Vec::<Value>::new() }; 4];
    if let Some(prompt) = prompt {
        // Nothing precedes the first token, so it has no probability.
        texts.push(prompt.first.as_str().into());
        own.push(Value::Null);
        tops.push(Value::Null);
        offsets.push(0.into());
    }
    let after = prompt.map_or(&[][..], |prompt| &prompt.others);
    let tokens = tokens.iter().map(|token| (token, token.offset + chars));
    for (token, offset) in after.iter().map(|token| (token, token.offset)).chain(tokens) {
        texts.push(token.token.text().into());
        own.push(token.token.logprob.into());
        tops.push(top(token));
        offsets.push(offset.into());
    }
    json!({"tokens": texts, "token_logprobs": own, "top_logprobs": tops, "text_offset": offsets})
}

/// The top log-probabilities by token text, including the sampled token. Among tokens with the same text, such as
/// incomplete characters, the most likely counts.
fn top(logprob: &Logprob) -> Value {
    let mut map = Map::new();
    for top_logprob in logprob.top.iter().chain([&logprob.token]) {
        map.entry(top_logprob.text()).or_insert_with(|| Value::from(top_logprob.logprob));
    }
    Value::Object(map)
}

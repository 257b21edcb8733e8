//! Choices of `POST /v1/completions`.

use serde_json::{Map, Value, json};

use super::reason;
use crate::choice::{Logprob, Piece};

pub(super) fn whole(index: usize, echo: &str, choice: &Piece) -> Value {
    let mut whole = delta(index, choice);
    whole["text"] = Value::from(format!("{echo}{}", choice.text));
    whole
}

pub(super) fn delta(index: usize, piece: &Piece) -> Value {
    let (reason, matched) = reason(piece.end.as_ref());
    json!({"index": index, "text": piece.text, "logprobs": logprobs(&piece.logprobs),
        "finish_reason": reason, "stop_reason": matched})
}

fn logprobs(tokens: &[Logprob]) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let each = |of: fn(&Logprob) -> Value| tokens.iter().map(of).collect::<Vec<Value>>();
    json!({
        "tokens": each(|logprob| Value::from(logprob.token.text())),
        "token_logprobs": each(|logprob| Value::from(logprob.token.logprob)),
        "top_logprobs": each(top),
        "text_offset": each(|logprob| Value::from(logprob.offset)),
    })
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

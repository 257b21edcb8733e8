//! Choices of `POST /v1/completions`.

use serde_json::{Map, Value, json};

use super::reason;
use crate::choice::{Logprob, Piece};

pub(super) fn whole(index: usize, echo: &str, choice: &Piece) -> Value {
    let mut told = delta(index, choice);
    told["text"] = Value::from(format!("{echo}{}", choice.text));
    told
}

pub(super) fn delta(index: usize, piece: &Piece) -> Value {
    let (reason, met) = reason(piece.end.as_ref());
    json!({"index": index, "text": piece.text, "logprobs": logprobs(&piece.logprobs),
        "finish_reason": reason, "stop_reason": met})
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

/// The likeliest tokens by their text, the drawn one among them. Of tokens with one text, such as
/// parts of characters, the likeliest is told.
fn top(logprob: &Logprob) -> Value {
    let mut map = Map::new();
    for likely in logprob.top.iter().chain([&logprob.token]) {
        map.entry(likely.text()).or_insert_with(|| Value::from(likely.logprob));
    }
    Value::Object(map)
}

//! Choices of `POST /v1/chat/completions`.

use serde_json::{Value, json};

use super::finish_reason::finish_reason;
use crate::choice::{Logprob, Piece, TopLogprob};

pub(super) fn whole(index: usize, choice: &Piece) -> Value {
    let (reason, matched) = finish_reason(choice.end.as_ref());
    json!({"index": index,
        "message": {"role": "assistant", "content": choice.text, "refusal": null},
        "logprobs": logprobs(&choice.logprobs), "finish_reason": reason, "stop_reason": matched})
}

pub(super) fn opening(index: usize) -> Value {
    json!({"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": null,
        "finish_reason": null})
}

pub(super) fn delta(index: usize, piece: &Piece) -> Value {
    let (reason, matched) = finish_reason(piece.end.as_ref());
    let delta = match piece.text.as_str() {
        "" => json!({}),
        text => json!({"content": text}),
    };
    let mut choice = json!({"index": index, "delta": delta, "logprobs": logprobs(&piece.logprobs),
        "finish_reason": reason});
    if piece.end.is_some() {
        choice["stop_reason"] = matched;
    }
    choice
}

fn logprobs(tokens: &[Logprob]) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let content: Vec<Value> = tokens.iter().map(token).collect();
    json!({"content": content, "refusal": null})
}

/// A token with its log-probability and the most likely ones.
pub(super) fn token(logprob: &Logprob) -> Value {
    let mut token = top_logprob(&logprob.token);
    token["top_logprobs"] = logprob.top.iter().map(top_logprob).collect();
    token
}

fn top_logprob(top_logprob: &TopLogprob) -> Value {
    json!({"token": top_logprob.text(), "logprob": top_logprob.logprob, "bytes": top_logprob.bytes})
}

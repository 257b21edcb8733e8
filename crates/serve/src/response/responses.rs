//! The response of `POST /v1/responses`, whole or as events.

use serde_json::{Map, Value, json};

use super::{Usage, chat, new_id, now_s};
use crate::choice::{Logprob, Piece};
use crate::refusal::Refusal;

/// A response with one message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Responses {
    id: String,
    message_id: String,
    created: u64,
    model: String,
    /// Fields of the request, and settings.
    repeated: Map<String, Value>,
    /// The number of the next event.
    sequence: u64,
    /// The message so far.
    text: String,
    logprobs: Vec<Logprob>,
    is_truncated: bool,
}

/// The state of a response.
enum Status<'a> {
    InProgress,
    Ended(Usage),
    Failed(&'a Refusal),
}

impl Responses {
    /// A response without text; `repeated` are fields of the request and the settings.
    pub(crate) fn new(model: &str, repeated: Map<String, Value>) -> Self {
        Self {
            id: new_id("resp_"),
            message_id: new_id("msg_"),
            created: now_s(),
            model: model.to_owned(),
            repeated,
            sequence: 0,
            text: String::new(),
            logprobs: Vec::new(),
            is_truncated: false,
        }
    }

    /// The whole response.
    pub(super) fn whole(&self, piece: &Piece, usage: Usage) -> Value {
        let mut whole = self.clone();
        whole.append(piece);
        whole.json(&Status::Ended(usage))
    }

    /// The events before the first text.
    pub(super) fn opening(&mut self) -> Vec<Value> {
        let response = self.json(&Status::InProgress);
        let mut item = self.item("in_progress");
        item["content"] = json!([]);
        let (item_id, part) = (self.message_id.clone(), part("", &[]));
        vec![
            self.event("response.created", json!({"response": response.clone()})),
            self.event("response.in_progress", json!({"response": response})),
            self.event("response.output_item.added", json!({"output_index": 0, "item": item})),
            self.event(
                "response.content_part.added",
                json!({"item_id": item_id, "output_index": 0, "content_index": 0, "part": part}),
            ),
        ]
    }

    /// The events for a further piece of the text.
    pub(super) fn delta(&mut self, piece: &Piece) -> Vec<Value> {
        self.append(piece);
        if piece.text.is_empty() && piece.logprobs.is_empty() {
            return Vec::new();
        }
        let delta = json!({"item_id": self.message_id, "output_index": 0, "content_index": 0,
            "delta": piece.text, "logprobs": tokens(&piece.logprobs)});
        vec![self.event("response.output_text.delta", delta)]
    }

    /// The events after the last text.
    pub(super) fn end(&mut self, usage: Usage) -> Vec<Value> {
        let (item_id, logprobs) = (self.message_id.clone(), tokens(&self.logprobs));
        let (text, part) = (self.text.clone(), part(&self.text, &self.logprobs));
        let (item, response) = (self.item(self.status()), self.json(&Status::Ended(usage)));
        let last = format!("response.{}", self.status());
        vec![
            self.event(
                "response.output_text.done",
                json!({"item_id": item_id, "output_index": 0, "content_index": 0, "text": text,
                    "logprobs": logprobs}),
            ),
            self.event(
                "response.content_part.done",
                json!({"item_id": item_id, "output_index": 0, "content_index": 0, "part": part}),
            ),
            self.event("response.output_item.done", json!({"output_index": 0, "item": item})),
            self.event(&last, json!({"response": response})),
        ]
    }

    /// The event of a failure.
    pub(super) fn failed(&mut self, refusal: &Refusal) -> Vec<Value> {
        let response = self.json(&Status::Failed(refusal));
        vec![self.event("response.failed", json!({"response": response}))]
    }

    fn append(&mut self, piece: &Piece) {
        self.text.push_str(&piece.text);
        self.logprobs.extend(piece.logprobs.iter().cloned());
        self.is_truncated |= piece.end.as_ref().is_some_and(|end| end.reason == "length");
    }

    fn status(&self) -> &'static str {
        if self.is_truncated { "incomplete" } else { "completed" }
    }

    fn event(&mut self, kind: &str, fields: Value) -> Value {
        let mut event = json!({"type": kind, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        event
    }

    /// The message.
    fn item(&self, status: &str) -> Value {
        json!({"id": self.message_id, "type": "message", "role": "assistant", "status": status,
            "content": [part(&self.text, &self.logprobs)]})
    }

    /// The response.
    fn json(&self, status: &Status<'_>) -> Value {
        let (name, output, usage, error, details) = match status {
            Status::InProgress => ("in_progress", json!([]), Value::Null, Value::Null, Value::Null),
            Status::Ended(usage) => {
                let details = match self.is_truncated {
                    true => json!({"reason": "max_output_tokens"}),
                    false => Value::Null,
                };
                let output = json!([self.item(self.status())]);
                (self.status(), output, usage_json(*usage), Value::Null, details)
            }
            Status::Failed(refusal) => {
                let message = refusal.json()["error"]["message"].take();
                let error = json!({"code": "server_error", "message": message});
                ("failed", json!([]), Value::Null, error, Value::Null)
            }
        };
        let mut response = json!({"id": self.id, "object": "response", "created_at": self.created,
            "status": name, "background": false, "error": error, "incomplete_details": details,
            "model": self.model, "output": output, "previous_response_id": null,
            "service_tier": "default", "store": false, "tool_choice": "auto", "tools": [],
            "usage": usage});
        if let Value::Object(response) = &mut response {
            response.extend(self.repeated.clone());
        }
        response
    }
}

fn part(text: &str, logprobs: &[Logprob]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": tokens(logprobs)})
}

fn tokens(logprobs: &[Logprob]) -> Vec<Value> {
    logprobs.iter().map(chat::token).collect()
}

fn usage_json(usage: Usage) -> Value {
    let Usage { prompt, completion, cached } = usage;
    json!({"input_tokens": prompt, "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion})
}

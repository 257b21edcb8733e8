//! Choices as JSON: a whole response, or the chunks of a stream.

mod chat;
mod completion;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::choice::{End, Piece};

/// The endpoint's response format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`. With `echo`, the prompts' texts, each prepended to its `n` choices.
    Completion { echo: Option<Vec<String>>, n: usize },
}

/// The fields common to all chunks of a response.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    form: Form,
    id: String,
    created: u64,
    model: String,
}

/// The token usage of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) completion: usize,
}

impl Usage {
    fn json(self) -> Value {
        let Self { prompt, completion } = self;
        json!({"prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion})
    }
}

impl Envelope {
    /// An envelope with a new id.
    pub(crate) fn new(form: Form, model: &str) -> Self {
        let kind = match form {
            Form::Chat => "chatcmpl",
            Form::Completion { .. } => "cmpl",
        };
        let id = format!("{kind}-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Self { form, id, created: now_s(), model: model.to_owned() }
    }

    /// A whole response, with choices in order.
    pub(crate) fn whole(&self, choices: &[Piece], usage: Usage) -> Value {
        let choices: Vec<Value> = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| match &self.form {
                Form::Chat => chat::whole(index, choice),
                Form::Completion { .. } => completion::whole(index, self.echo(index), choice),
            })
            .collect();
        let object = match self.form {
            Form::Chat => "chat.completion",
            Form::Completion { .. } => "text_completion",
        };
        let mut response = self.with(object, choices);
        response["usage"] = usage.json();
        response
    }

    /// The first chunk of a choice, if it has one.
    pub(crate) fn opening(&self, index: usize) -> Option<Value> {
        let choice = match &self.form {
            Form::Chat => chat::opening(index),
            Form::Completion { .. } => {
                let text = self.echo(index);
                let piece = Piece { text: text.to_owned(), ..Piece::default() };
                (!text.is_empty()).then(|| completion::delta(index, &piece))?
            }
        };
        Some(self.chunk(vec![choice]))
    }

    /// The chunk with a delta of a choice.
    pub(crate) fn delta(&self, index: usize, piece: &Piece) -> Value {
        self.chunk(vec![match self.form {
            Form::Chat => chat::delta(index, piece),
            Form::Completion { .. } => completion::delta(index, piece),
        }])
    }

    /// The chunk with the usage.
    pub(crate) fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.chunk(Vec::new());
        chunk["usage"] = usage.json();
        chunk
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let object = match self.form {
            Form::Chat => "chat.completion.chunk",
            Form::Completion { .. } => "text_completion",
        };
        self.with(object, choices)
    }

    fn with(&self, object: &str, choices: Vec<Value>) -> Value {
        let Self { id, created, model, .. } = self;
        json!({"id": id, "object": object, "created": created, "model": model, "choices": choices})
    }

    /// The echoed prompt before a choice's text.
    fn echo(&self, index: usize) -> &str {
        match &self.form {
            Form::Completion { echo: Some(prompts), n } => {
                prompts.get(index / n).map_or("", String::as_str)
            }
            _ => "",
        }
    }
}

fn reason(end: Option<&End>) -> (Value, Value) {
    match end {
        Some(end) => (json!(end.reason), end.matched.clone()),
        None => (Value::Null, Value::Null),
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

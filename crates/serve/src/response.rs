//! Choices as JSON: a whole response, or the chunks of a stream.

mod chat;
mod completion;
mod finish_reason;
mod responses;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::choice::{Piece, PromptLogprobs};
use crate::refusal::Refusal;
use crate::request::{Include, Model};
pub(crate) use completion::{EchoedLogprobs, EchoedPrompt};
pub(crate) use responses::Responses;

/// The endpoint's response format.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`. With `echo`, the prompts, each prepended to its `n` choices.
    Completion { echo: Option<Vec<EchoedPrompt>>, n: usize },
    /// `POST /v1/responses`.
    Responses(Box<Responses>),
}

/// The format and the common fields of a response.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    form: Form,
    id: String,
    created: u64,
    model: String,
    system_fingerprint: String,
}

/// The token usage of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) completion: usize,
    /// Tokens of the prompt that were in the prefix cache.
    pub(crate) cached: usize,
}

impl Usage {
    pub(crate) fn json(self) -> Value {
        let Self { prompt, completion, cached } = self;
        json!({"prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached}})
    }
}

impl Envelope {
    /// An envelope with a new id.
    pub(crate) fn new(form: Form, model: &Model) -> Self {
        let kind = match form {
            Form::Completion { .. } => "cmpl",
            Form::Chat | Form::Responses(_) => "chatcmpl",
        };
        let id = new_id(&format!("{kind}-"));
        let (name, system_fingerprint) = (model.name.clone(), model.system_fingerprint.clone());
        Self { form, id, created: now_s(), model: name, system_fingerprint }
    }

    /// A whole response, with choices in order.
    pub(crate) fn whole(&self, choices: &[Piece], usage: Usage) -> Value {
        let each = |of: &dyn Fn(usize, &Piece) -> Value| {
            choices.iter().enumerate().map(|(index, choice)| of(index, choice)).collect()
        };
        let (object, choices) = match &self.form {
            Form::Chat => ("chat.completion", each(&chat::whole)),
            Form::Completion { .. } => {
                let whole =
                    |index, choice: &Piece| completion::whole(index, self.echo(index), choice);
                ("text_completion", each(&whole))
            }
            Form::Responses(response) => {
                return response.whole(choices.first().unwrap_or(&Piece::default()), usage);
            }
        };
        let mut response = self.with(object, choices);
        response["usage"] = usage.json();
        response
    }

    /// The chunks before the first token of `choices` choices.
    pub(crate) fn opening(&mut self, choices: usize) -> Vec<Value> {
        match &mut self.form {
            Form::Responses(response) => response.opening(),
            Form::Chat => {
                (0..choices).map(|index| self.chunk(vec![chat::opening(index)])).collect()
            }
            Form::Completion { .. } => self.echoes(0..choices),
        }
    }

    /// Adds the log-probabilities of a prompt that is echoed, and returns the chunks with it.
    pub(crate) fn prompt(&mut self, index: usize, logprobs: PromptLogprobs) -> Vec<Value> {
        let Form::Completion { echo: Some(prompts), n } = &mut self.form else { return Vec::new() };
        let n = *n;
        let Some(prompt) = prompts.get_mut(index) else { return Vec::new() };
        prompt.logprobs = EchoedLogprobs::Known(logprobs);
        self.echoes(index * n..(index + 1) * n)
    }

    /// The chunks with the echoed prompts of these choices, as far as they are known.
    fn echoes(&self, choices: std::ops::Range<usize>) -> Vec<Value> {
        let chunk = |index| {
            let prompt = self.echo(index)?;
            let is_ready = match prompt.logprobs {
                EchoedLogprobs::None => !prompt.text.is_empty(),
                EchoedLogprobs::Pending => false,
                EchoedLogprobs::Known(_) => true,
            };
            is_ready.then(|| self.chunk(vec![completion::opening(index, prompt)]))
        };
        choices.filter_map(chunk).collect()
    }

    /// The chunks with a delta of a choice.
    pub(crate) fn delta(&mut self, index: usize, piece: &Piece) -> Vec<Value> {
        let choice = match &mut self.form {
            Form::Responses(response) => return response.delta(piece),
            Form::Chat => chat::delta(index, piece),
            Form::Completion { .. } => completion::delta(index, self.echo(index), piece),
        };
        vec![self.chunk(vec![choice])]
    }

    /// The chunks after the last token.
    pub(crate) fn end(&mut self, usage: Usage, include: Include) -> Vec<Value> {
        if let Form::Responses(response) = &mut self.form {
            return response.end(usage);
        }
        match include {
            Include::Nothing => Vec::new(),
            Include::Usage | Include::ContinuousUsage => {
                let mut chunk = self.chunk(Vec::new());
                chunk["usage"] = usage.json();
                vec![chunk]
            }
        }
    }

    /// The chunks of a failure.
    pub(crate) fn failed(&mut self, refusal: &Refusal) -> Vec<Value> {
        match &mut self.form {
            Form::Responses(response) => response.failed(refusal),
            _ => vec![refusal.json()],
        }
    }

    /// The name of a chunk's event; events of responses are named.
    pub(crate) fn event<'a>(&self, chunk: &'a Value) -> Option<&'a str> {
        match self.form {
            Form::Responses(_) => chunk["type"].as_str(),
            _ => None,
        }
    }

    /// What ends a stream.
    pub(crate) fn terminator(&self) -> Option<&'static str> {
        match self.form {
            Form::Responses(_) => None,
            _ => Some("[DONE]"),
        }
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let object = match self.form {
            Form::Completion { .. } => "text_completion",
            Form::Chat | Form::Responses(_) => "chat.completion.chunk",
        };
        self.with(object, choices)
    }

    fn with(&self, object: &str, choices: Vec<Value>) -> Value {
        let Self { id, created, model, system_fingerprint, .. } = self;
        json!({"id": id, "object": object, "created": created, "model": model,
            "system_fingerprint": system_fingerprint, "choices": choices})
    }

    /// The echoed prompt before a choice's text.
    fn echo(&self, index: usize) -> Option<&EchoedPrompt> {
        match &self.form {
            Form::Completion { echo: Some(prompts), n } => prompts.get(index / n),
            _ => None,
        }
    }
}

/// A new id that begins with `prefix`.
fn new_id(prefix: &str) -> String {
    format!("{prefix}{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

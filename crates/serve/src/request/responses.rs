//! Bodies of `POST /v1/responses`: text, images and videos in, one message out. Nothing is stored.

use serde_json::{Map, Value, json};

use super::chat::Conversation;
use super::fields::Fields;
use super::message::{Message, message};
use super::settings::{Include, Model, ResponseMode, Settings};
use crate::refusal::Refusal;

/// The part of `include` that asks for log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A request for a response.
#[derive(Debug)]
pub(crate) struct ResponsesRequest {
    pub(crate) conversation: Conversation,
    pub(crate) settings: Settings,
    /// Fields that the response repeats.
    pub(crate) repeated: Map<String, Value>,
}

impl ResponsesRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first invalid or unsupported field.
    pub(crate) fn parse(body: &[u8], model: &Model) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        let repeated = repeated(&fields);
        let mut settings = Settings::take(&mut fields, model)?;
        if settings.n != 1 {
            return Err(Refusal::about("n", "`n` must be 1, a response has one message"));
        }
        if let ResponseMode::Stream(include) = &mut settings.response_mode {
            // The last event always has it.
            *include = Include::Nothing;
        }
        settings.max_tokens = fields.count("max_output_tokens", 1)?.or(settings.max_tokens);
        settings.sampling.logprobs = logprobs(&mut fields)?;
        check_features(&mut fields)?;
        let effort = effort(&mut fields)?;
        let mut conversation = conversation(&mut fields, model.media.is_some())?;
        conversation.cache_salt = fields.string("cache_salt")?;
        conversation.variables =
            effort.map(|effort| ("reasoning_effort".to_owned(), effort)).into_iter().collect();
        fields.end()?;
        settings.check()?;
        Ok(Self { conversation, settings, repeated })
    }
}

/// The fields that a response repeats, with defaults for those that are missing.
fn repeated(fields: &Fields) -> Map<String, Value> {
    let mut repeated = Map::new();
    for (name, default) in [
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", json!(true)),
        ("prompt_cache_key", Value::Null),
        ("reasoning", json!({"effort": null, "summary": null})),
        ("safety_identifier", Value::Null),
        ("text", json!({"format": {"type": "text"}})),
        ("top_logprobs", json!(0)),
        ("truncation", json!("disabled")),
        ("user", Value::Null),
    ] {
        repeated.insert(name.to_owned(), fields.get(name).cloned().unwrap_or(default));
    }
    repeated
}

/// Refuses stored responses, and forms of the text other than the plain one.
fn check_features(fields: &mut Fields) -> Result<(), Refusal> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if fields.take(name).is_some() {
            let message = format!(
                "`{name}` needs stored responses, which this server does not keep: send the whole input"
            );
            return Err(Refusal::about(name, message));
        }
    }
    match fields.string("truncation")?.as_deref() {
        None | Some("disabled") => {}
        Some(_) => return Err(Refusal::unsupported("truncation")),
    }
    let Some(text) = fields.take("text") else { return Ok(()) };
    let mut text = Fields::within(text, "text")?;
    match text.take("format") {
        None => {}
        Some(format) if format == json!({"type": "text"}) => {}
        Some(_) => return Err(Refusal::unsupported("text.format")),
    }
    text.end()
}

/// The effort of `reasoning`, a variable of the chat template.
fn effort(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    let Some(reasoning) = fields.take("reasoning") else { return Ok(None) };
    let mut reasoning = Fields::within(reasoning, "reasoning")?;
    Ok(reasoning.string("effort")?.map(Value::from))
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let top = Settings::top_logprobs(fields, "top_logprobs")?;
    let included = match fields.take("include") {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Refusal::field("include", &other, "a list")),
    };
    // The others are parts of responses that this server does not give: reasoning and results of tools.
    match included.iter().any(|part| part == LOGPROBS) {
        true => Ok(Some(top.unwrap_or(0))),
        false => Ok(top.filter(|top| *top > 0)),
    }
}

/// `instructions`, and `input`: a text or a list of items.
fn conversation(fields: &mut Fields, is_vision_model: bool) -> Result<Conversation, Refusal> {
    let mut messages = Vec::new();
    if let Some(instructions) = fields.string("instructions")? {
        messages.push(Message::new("system", instructions));
    }
    let items = match fields.take("input").ok_or_else(|| Refusal::missing("input"))? {
        Value::String(text) => {
            messages.push(Message::new("user", text));
            return Ok(Conversation::of(messages));
        }
        Value::Array(items) if !items.is_empty() => items,
        other => return Err(Refusal::field("input", &other, "a text or a list of items")),
    };
    let mut calls = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let name = format!("input[{index}]");
        match Item::read(item, &name)? {
            Item::Call(call) => calls.push(call),
            Item::Message(value) => {
                flush(&mut calls, &mut messages, &name)?;
                messages.push(message(value, &name, is_vision_model)?);
            }
            Item::Reasoning => {}
        }
    }
    flush(&mut calls, &mut messages, "input")?;
    Ok(Conversation::of(messages))
}

/// Appends the calls so far as one message of the assistant.
fn flush(calls: &mut Vec<Value>, messages: &mut Vec<Message>, name: &str) -> Result<(), Refusal> {
    if !calls.is_empty() {
        let calls = std::mem::take(calls);
        let value = json!({"role": "assistant", "content": null, "tool_calls": calls});
        messages.push(message(value, name, false)?);
    }
    Ok(())
}

/// An item of the input, in the form of chat completions.
enum Item {
    Message(Value),
    Call(Value),
    /// An earlier turn's reasoning, which is no part of a conversation.
    Reasoning,
}

impl Item {
    fn read(value: Value, name: &str) -> Result<Self, Refusal> {
        let Value::Object(mut item) = value else {
            return Err(Refusal::field(name, &value, "an object"));
        };
        let kind = item.swap_remove("type");
        // Labels of items that a response had.
        for label in ["id", "status", "phase"] {
            item.swap_remove(label);
        }
        let mut take = |field: &str| item.swap_remove(field).unwrap_or(Value::Null);
        match kind.as_ref().map_or(Some("message"), Value::as_str) {
            Some("message") => Ok(Self::Message(Value::Object(item))),
            Some("function_call") => {
                let (id, function) = (take("call_id"), [take("name"), take("arguments")]);
                let [called, arguments] = function;
                let function = json!({"name": called, "arguments": arguments});
                Ok(Self::Call(json!({"id": id, "type": "function", "function": function})))
            }
            Some("function_call_output") => {
                let (id, output) = (take("call_id"), take("output"));
                Ok(Self::Message(json!({"role": "tool", "tool_call_id": id, "content": output})))
            }
            Some("reasoning") => Ok(Self::Reasoning),
            _ => {
                let want = "`message`, `function_call`, `function_call_output` or `reasoning`";
                Err(Refusal::field(&format!("{name}.type"), &kind.unwrap_or_default(), want))
            }
        }
    }
}

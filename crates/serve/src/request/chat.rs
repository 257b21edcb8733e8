//! Bodies of `POST /v1/chat/completions`.

use embodied_r_policy::tokenizer::ChatMessage;
use serde_json::Value;

use super::fields::Fields;
use super::settings::{Model, Settings};
use crate::refusal::Refusal;

/// A conversation to go on with.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) settings: Settings,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first field that is wrong, or that asks for what this server does not do.
    pub(crate) fn parse(body: &[u8], model: &Model) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        let mut settings = Settings::take(&mut fields, model)?;
        settings.max_tokens = max_tokens(&mut fields, settings.max_tokens)?;
        settings.sampling.logprobs = logprobs(&mut fields)?;
        let messages = messages(&mut fields)?;
        fields.end()?;
        settings.check()?;
        Ok(Self { messages, settings })
    }
}

/// The newer name of `max_tokens`.
fn max_tokens(fields: &mut Fields, older: Option<usize>) -> Result<Option<usize>, Refusal> {
    let newer = fields.count("max_completion_tokens", 1)?;
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => {
            let told = format!(
                "`max_completion_tokens` is {newer} and `max_tokens` {older}, leave one out"
            );
            Err(Refusal::about("max_completion_tokens", told))
        }
        _ => Ok(newer.or(older)),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = Settings::top_logprobs(fields, "top_logprobs")?;
    match (wanted, top) {
        (false, Some(1..)) => {
            Err(Refusal::about("top_logprobs", "`top_logprobs` needs `logprobs` to be true"))
        }
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0))),
    }
}

fn messages(fields: &mut Fields) -> Result<Vec<ChatMessage>, Refusal> {
    let value = fields.take("messages").ok_or_else(|| Refusal::missing("messages"))?;
    let Value::Array(list) = value else {
        return Err(Refusal::field("messages", &value, "a list of messages"));
    };
    if list.is_empty() {
        return Err(Refusal::about("messages", "`messages` is empty, want at least one"));
    }
    let message = |(index, value)| message(value, &format!("messages[{index}]"));
    list.into_iter().enumerate().map(message).collect()
}

fn message(value: Value, name: &str) -> Result<ChatMessage, Refusal> {
    let mut fields = Fields::within(value, name)?;
    let param = fields.name("role");
    let role = fields.string("role")?.ok_or_else(|| Refusal::missing(&param))?;
    let role = match role.as_str() {
        "system" | "user" | "assistant" => role,
        // What OpenAI calls the system's words to its newer models.
        "developer" => "system".to_owned(),
        _ => {
            let want = "`system`, `developer`, `user` or `assistant`";
            return Err(Refusal::field(&param, &Value::from(role), want));
        }
    };
    let content = content(&mut fields)?;
    fields.end()?;
    Ok(ChatMessage { role, content })
}

/// Text, or a list of text parts, which stand on lines of their own as with vLLM.
fn content(fields: &mut Fields) -> Result<String, Refusal> {
    let param = fields.name("content");
    let parts = match fields.take("content") {
        None => return Err(Refusal::missing(&param)),
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(Refusal::field(&param, &other, "a string or a list of parts")),
    };
    let part = |(index, value)| part(value, &format!("{param}[{index}]"));
    let texts: Vec<String> = parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?;
    Ok(texts.join("\n"))
}

fn part(value: Value, name: &str) -> Result<String, Refusal> {
    let mut fields = Fields::within(value, name)?;
    let param = fields.name("type");
    let kind = fields.string("type")?.ok_or_else(|| Refusal::missing(&param))?;
    if kind != "text" {
        let told = format!("`{param}` is \"{kind}\", this server reads text only: want \"text\"");
        return Err(Refusal::about(&param, told));
    }
    let param = fields.name("text");
    let text = fields.string("text")?.ok_or_else(|| Refusal::missing(&param))?;
    fields.end()?;
    Ok(text)
}

//! Bodies of `POST /v1/chat/completions`.

use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_vision::{MultimodalMessage, MultimodalPart};
use serde_json::Value;

use super::fields::Fields;
use super::settings::{Model, Settings};
use crate::refusal::Refusal;

/// A chat completion request.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) conversation: Conversation,
    pub(crate) settings: Settings,
}

/// The messages of a request.
#[derive(Debug)]
pub(crate) enum Conversation {
    /// Text only.
    Text(Vec<ChatMessage>),
    /// Text and images, the latter in the order of their placeholders.
    Multimodal(Vec<MultimodalMessage>, Vec<ImageUrl>),
}

/// An image of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageUrl {
    /// The field that contains it.
    pub(crate) param: String,
    pub(crate) url: String,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The first invalid or unsupported field.
    pub(crate) fn parse(body: &[u8], model: &Model) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        let mut settings = Settings::take(&mut fields, model)?;
        settings.max_tokens = max_tokens(&mut fields, settings.max_tokens)?;
        settings.sampling.logprobs = logprobs(&mut fields)?;
        let conversation = conversation(&mut fields, model.media.is_some())?;
        fields.end()?;
        settings.check()?;
        Ok(Self { conversation, settings })
    }
}

/// The newer name of `max_tokens`.
fn max_tokens(fields: &mut Fields, older: Option<usize>) -> Result<Option<usize>, Refusal> {
    let newer = fields.count("max_completion_tokens", 1)?;
    match (older, newer) {
        (Some(older), Some(newer)) if older != newer => {
            let message = format!(
                "`max_completion_tokens` is {newer} and `max_tokens` {older}; omit one of them"
            );
            Err(Refusal::about("max_completion_tokens", message))
        }
        _ => Ok(newer.or(older)),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, Refusal> {
    let enabled = fields.boolean("logprobs")?.unwrap_or(false);
    let top = Settings::top_logprobs(fields, "top_logprobs")?;
    match (enabled, top) {
        (false, Some(1..)) => {
            Err(Refusal::about("top_logprobs", "`top_logprobs` needs `logprobs` to be true"))
        }
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0))),
    }
}

/// A message of the request.
struct InputMessage {
    role: String,
    content: Content,
}

/// The content of a message.
enum Content {
    Text(String),
    Parts(Vec<InputPart>),
}

/// A part of a message.
enum InputPart {
    Text(String),
    Image(ImageUrl),
}

/// The conversation; it may contain images if the model is a vision-language model.
fn conversation(fields: &mut Fields, is_vision_model: bool) -> Result<Conversation, Refusal> {
    let messages = messages(fields, is_vision_model)?;
    let has_images = |message: &InputMessage| match &message.content {
        Content::Text(_) => false,
        Content::Parts(parts) => parts.iter().any(|part| matches!(part, InputPart::Image(_))),
    };
    if !messages.iter().any(has_images) {
        let message = |message: InputMessage| ChatMessage {
            role: message.role,
            content: message.content.text(),
        };
        return Ok(Conversation::Text(messages.into_iter().map(message).collect()));
    }
    let mut images = Vec::new();
    let message = |InputMessage { role, content }: InputMessage| {
        let mut part = |part| match part {
            InputPart::Text(text) => MultimodalPart::Text { text },
            InputPart::Image(url) => {
                images.push(url);
                MultimodalPart::Image
            }
        };
        let content = match content {
            Content::Text(text) => vec![MultimodalPart::Text { text }],
            Content::Parts(parts) => parts.into_iter().map(&mut part).collect(),
        };
        MultimodalMessage { role, content }
    };
    let messages = messages.into_iter().map(message).collect();
    Ok(Conversation::Multimodal(messages, images))
}

impl Content {
    /// The text; parts are joined by newlines, as in vLLM.
    fn text(self) -> String {
        let text = |part| match part {
            InputPart::Text(text) => Some(text),
            InputPart::Image(_) => None,
        };
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().filter_map(text).collect::<Vec<_>>().join("\n"),
        }
    }
}

fn messages(fields: &mut Fields, is_vision_model: bool) -> Result<Vec<InputMessage>, Refusal> {
    let value = fields.take("messages").ok_or_else(|| Refusal::missing("messages"))?;
    let Value::Array(list) = value else {
        return Err(Refusal::field("messages", &value, "a list of messages"));
    };
    if list.is_empty() {
        return Err(Refusal::about("messages", "`messages` must have at least one message"));
    }
    let message = |(index, value)| message(value, &format!("messages[{index}]"), is_vision_model);
    list.into_iter().enumerate().map(message).collect()
}

fn message(value: Value, name: &str, is_vision_model: bool) -> Result<InputMessage, Refusal> {
    let mut fields = Fields::within(value, name)?;
    let param = fields.name("role");
    let role = fields.string("role")?.ok_or_else(|| Refusal::missing(&param))?;
    let role = match role.as_str() {
        "system" | "user" | "assistant" => role,
        // OpenAI's name of the system role for newer models.
        "developer" => "system".to_owned(),
        _ => {
            let want = "`system`, `developer`, `user` or `assistant`";
            return Err(Refusal::field(&param, &Value::from(role), want));
        }
    };
    let content = content(&mut fields, is_vision_model)?;
    fields.end()?;
    Ok(InputMessage { role, content })
}

fn content(fields: &mut Fields, is_vision_model: bool) -> Result<Content, Refusal> {
    let param = fields.name("content");
    let parts = match fields.take("content") {
        None => return Err(Refusal::missing(&param)),
        Some(Value::String(text)) => return Ok(Content::Text(text)),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(Refusal::field(&param, &other, "a string or a list of parts")),
    };
    let part = |(index, value)| part(value, &format!("{param}[{index}]"), is_vision_model);
    Ok(Content::Parts(parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?))
}

fn part(value: Value, name: &str, is_vision_model: bool) -> Result<InputPart, Refusal> {
    let mut fields = Fields::within(value, name)?;
    let param = fields.name("type");
    let kind = fields.string("type")?.ok_or_else(|| Refusal::missing(&param))?;
    let part = match (kind.as_str(), is_vision_model) {
        ("text", _) => {
            let param = fields.name("text");
            InputPart::Text(fields.string("text")?.ok_or_else(|| Refusal::missing(&param))?)
        }
        ("image_url", true) => InputPart::Image(image_url(&mut fields)?),
        (_, is_vision_model) => {
            let supported = match is_vision_model {
                true => "`text` or `image_url`",
                false => "`text`, as the model has no vision encoder",
            };
            let message = format!("`{param}` is \"{kind}\" but must be {supported}");
            return Err(Refusal::about(&param, message));
        }
    };
    fields.end()?;
    Ok(part)
}

/// `{"url": …, "detail"?: …}`.
fn image_url(fields: &mut Fields) -> Result<ImageUrl, Refusal> {
    let name = fields.name("image_url");
    let value = fields.take("image_url").ok_or_else(|| Refusal::missing(&name))?;
    let mut fields = Fields::within(value, &name)?;
    let param = fields.name("url");
    let url = fields.string("url")?.ok_or_else(|| Refusal::missing(&param))?;
    let detail = fields.name("detail");
    match fields.string("detail")?.as_deref() {
        None | Some("auto" | "high") => {}
        Some(other) => {
            let want = "`auto` or `high` (this server does not downscale images)";
            return Err(Refusal::field(&detail, &Value::from(other), want));
        }
    }
    fields.end()?;
    Ok(ImageUrl { param, url })
}

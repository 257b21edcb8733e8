//! The messages of a conversation.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use crate::refusal::Refusal;

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// The role, and what templates may know besides: `name`, `tool_calls`, `tool_call_id`, `reasoning_content`.
    fields: Map<String, Value>,
    content: Vec<Part>,
}

/// An image or a video of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MediaUrl {
    pub(crate) kind: MediaKind,
    /// The field that contains it.
    pub(crate) param: String,
    pub(crate) url: String,
}

/// What a URL refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaKind {
    Image,
    Video,
}

impl MediaKind {
    /// Its name in messages and templates.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
        }
    }
}

/// A part of a message's content.
#[derive(Debug)]
enum Part {
    Text(String),
    Media(MediaUrl),
}

/// The form of contents for the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A text.
    Text,
    /// A list of parts.
    Parts,
}

impl Form {
    /// The form for a conversation: texts, unless there are images or videos.
    pub(super) fn of(messages: &[Message]) -> Self {
        let mut parts = messages.iter().flat_map(|message| &message.content);
        match parts.any(|part| matches!(part, Part::Media(_))) {
            true => Self::Parts,
            false => Self::Text,
        }
    }
}

impl Message {
    /// A message of a role and a text.
    pub(super) fn new(role: &str, text: String) -> Self {
        let fields = Map::from_iter([("role".to_owned(), Value::from(role))]);
        Self { fields, content: vec![Part::Text(text)] }
    }

    /// The message for the template; its images and videos are appended to `media`.
    pub(super) fn rendered(self, form: Form, media: &mut Vec<MediaUrl>) -> Value {
        let Self { mut fields, content } = self;
        let texts = content.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Media(_) => None,
        });
        let content = match form {
            // As in vLLM, each part is a line.
            Form::Text => texts.collect::<Vec<_>>().join("\n").into(),
            Form::Parts => {
                let part = |part| match part {
                    Part::Text(text) => json!({"type": "text", "text": text}),
                    Part::Media(url) => {
                        let part = json!({"type": url.kind.name()});
                        media.push(url);
                        part
                    }
                };
                content.into_iter().map(part).collect()
            }
        };
        fields.insert("content".to_owned(), content);
        Value::Object(fields)
    }
}

/// Takes `messages`.
pub(super) fn messages(
    fields: &mut Fields,
    is_vision_model: bool,
) -> Result<Vec<Message>, Refusal> {
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

/// Reads one message, the field `name` of a request.
pub(super) fn message(value: Value, name: &str, is_vision_model: bool) -> Result<Message, Refusal> {
    let mut fields = Fields::within(value, name)?;
    let role = role(&mut fields)?;
    let mut known = Map::new();
    known.insert("role".to_owned(), role.into());
    for field in ["name", "tool_call_id", "reasoning_content", "reasoning"] {
        if let Some(text) = fields.string(field)? {
            known.insert(field.to_owned(), text.into());
        }
    }
    if role == "assistant"
        && let Some(calls) = tool_calls(&mut fields)?
    {
        known.insert("tool_calls".to_owned(), calls.into());
    }
    let content = content(&mut fields, role, is_vision_model)?;
    fields.end()?;
    Ok(Message { fields: known, content })
}

fn role(fields: &mut Fields) -> Result<&'static str, Refusal> {
    let param = fields.name("role");
    let role = fields.string("role")?.ok_or_else(|| Refusal::missing(&param))?;
    match role.as_str() {
        // OpenAI's name of the system role for newer models, which templates do not know.
        "system" | "developer" => Ok("system"),
        "user" => Ok("user"),
        "assistant" => Ok("assistant"),
        "tool" => Ok("tool"),
        _ => {
            let want = "`system`, `developer`, `user`, `assistant` or `tool`";
            Err(Refusal::field(&param, &Value::from(role), want))
        }
    }
}

/// The calls of an assistant's message, with their arguments as objects, which templates expect.
fn tool_calls(fields: &mut Fields) -> Result<Option<Vec<Value>>, Refusal> {
    let name = fields.name("tool_calls");
    let list = match fields.take("tool_calls") {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Refusal::field(&name, &other, "a list of tool calls")),
    };
    let call = |(index, mut call): (usize, Value)| {
        let name = format!("{name}[{index}].function.arguments");
        let Some(arguments) = call.pointer_mut("/function/arguments") else {
            return Err(Refusal::missing(&name));
        };
        if let Some(text) = arguments.as_str() {
            let text = if text.is_empty() { "{}" } else { text };
            let parsed = serde_json::from_str(text).ok().filter(Value::is_object);
            *arguments =
                parsed.ok_or_else(|| Refusal::field(&name, &text.into(), "a JSON object"))?;
        }
        Ok(call)
    };
    let calls: Vec<Value> = list.into_iter().enumerate().map(call).collect::<Result<_, _>>()?;
    Ok((!calls.is_empty()).then_some(calls))
}

fn content(fields: &mut Fields, role: &str, is_vision_model: bool) -> Result<Vec<Part>, Refusal> {
    let param = fields.name("content");
    let parts = match fields.take("content") {
        // An assistant's message may consist of tool calls.
        None if role == "assistant" => return Ok(Vec::new()),
        None => return Err(Refusal::missing(&param)),
        Some(Value::String(text)) => return Ok(vec![Part::Text(text)]),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(Refusal::field(&param, &other, "a string or a list of parts")),
    };
    let part = |(index, value)| part(value, &format!("{param}[{index}]"), is_vision_model);
    parts.into_iter().enumerate().map(part).collect()
}

/// A part in the form of chat completions, or of responses (`input_text`, `input_image`, `output_text`).
fn part(value: Value, name: &str, is_vision_model: bool) -> Result<Part, Refusal> {
    let mut fields = Fields::within(value, name)?;
    let param = fields.name("type");
    let kind = fields.string("type")?.ok_or_else(|| Refusal::missing(&param))?;
    let part = match (kind.as_str(), is_vision_model) {
        ("text" | "input_text" | "output_text", _) => {
            let param = fields.name("text");
            // Log-probabilities of a text that was generated.
            let _ = fields.take("logprobs");
            Part::Text(fields.string("text")?.ok_or_else(|| Refusal::missing(&param))?)
        }
        ("image_url" | "input_image", true) => {
            Part::Media(media_url(&mut fields, "image_url", MediaKind::Image)?)
        }
        ("video_url", true) => Part::Media(media_url(&mut fields, "video_url", MediaKind::Video)?),
        (_, is_vision_model) => {
            let supported = match is_vision_model {
                true => "`text`, `image_url` or `video_url`",
                false => "`text`, as the model has no vision encoder",
            };
            let message = format!("`{param}` is \"{kind}\" but must be {supported}");
            return Err(Refusal::about(&param, message));
        }
    };
    fields.end()?;
    Ok(part)
}

/// `{"url": …}`, or the URL. `detail` is ignored, as in vLLM: the model's image processor chooses the resolution.
fn media_url(fields: &mut Fields, field: &str, kind: MediaKind) -> Result<MediaUrl, Refusal> {
    let name = fields.name(field);
    let _ = fields.take("detail");
    match fields.take(field).ok_or_else(|| Refusal::missing(&name))? {
        Value::String(url) => Ok(MediaUrl { kind, param: name, url }),
        value => {
            let mut fields = Fields::within(value, &name)?;
            let param = fields.name("url");
            let url = fields.string("url")?.ok_or_else(|| Refusal::missing(&param))?;
            let _ = fields.take("detail");
            fields.end()?;
            Ok(MediaUrl { kind, param, url })
        }
    }
}

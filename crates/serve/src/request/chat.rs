//! Bodies of `POST /v1/chat/completions`.

use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_vision::{Message, Part};
use serde_json::Value;

use super::fields::Fields;
use super::settings::{Model, Settings};
use crate::refusal::Refusal;

/// A conversation to go on with.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) conversation: Conversation,
    pub(crate) settings: Settings,
}

/// What was said so far.
#[derive(Debug)]
pub(crate) enum Conversation {
    /// Words alone.
    Text(Vec<ChatMessage>),
    /// Words and pictures, the latter in the order of their places.
    Pictures(Vec<Message>, Vec<PictureUrl>),
}

/// A picture that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PictureUrl {
    /// The field that names it.
    pub(crate) param: String,
    pub(crate) url: String,
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

/// A message: who speaks, and what.
struct Turn {
    role: String,
    content: Content,
}

/// What a message holds.
enum Content {
    Text(String),
    Parts(Vec<Piece>),
}

/// A part of a message.
enum Piece {
    Text(String),
    Picture(PictureUrl),
}

/// The conversation; `can_see` says whether there may be pictures in it.
fn conversation(fields: &mut Fields, can_see: bool) -> Result<Conversation, Refusal> {
    let turns = turns(fields, can_see)?;
    let has_pictures = |turn: &Turn| match &turn.content {
        Content::Text(_) => false,
        Content::Parts(parts) => parts.iter().any(|part| matches!(part, Piece::Picture(_))),
    };
    if !turns.iter().any(has_pictures) {
        let message = |turn: Turn| ChatMessage { role: turn.role, content: turn.content.text() };
        return Ok(Conversation::Text(turns.into_iter().map(message).collect()));
    }
    let mut pictures = Vec::new();
    let message = |Turn { role, content }: Turn| {
        let mut part = |piece| match piece {
            Piece::Text(text) => Part::Text { text },
            Piece::Picture(url) => {
                pictures.push(url);
                Part::Image
            }
        };
        let content = match content {
            Content::Text(text) => vec![Part::Text { text }],
            Content::Parts(parts) => parts.into_iter().map(&mut part).collect(),
        };
        Message { role, content }
    };
    let messages = turns.into_iter().map(message).collect();
    Ok(Conversation::Pictures(messages, pictures))
}

impl Content {
    /// Its words; those of several parts stand on lines of their own, as with vLLM.
    fn text(self) -> String {
        let words = |piece| match piece {
            Piece::Text(text) => Some(text),
            Piece::Picture(_) => None,
        };
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => {
                parts.into_iter().filter_map(words).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

fn turns(fields: &mut Fields, can_see: bool) -> Result<Vec<Turn>, Refusal> {
    let value = fields.take("messages").ok_or_else(|| Refusal::missing("messages"))?;
    let Value::Array(list) = value else {
        return Err(Refusal::field("messages", &value, "a list of messages"));
    };
    if list.is_empty() {
        return Err(Refusal::about("messages", "`messages` is empty, want at least one"));
    }
    let turn = |(index, value)| turn(value, &format!("messages[{index}]"), can_see);
    list.into_iter().enumerate().map(turn).collect()
}

fn turn(value: Value, name: &str, can_see: bool) -> Result<Turn, Refusal> {
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
    let content = content(&mut fields, can_see)?;
    fields.end()?;
    Ok(Turn { role, content })
}

fn content(fields: &mut Fields, can_see: bool) -> Result<Content, Refusal> {
    let param = fields.name("content");
    let parts = match fields.take("content") {
        None => return Err(Refusal::missing(&param)),
        Some(Value::String(text)) => return Ok(Content::Text(text)),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(Refusal::field(&param, &other, "a string or a list of parts")),
    };
    let piece = |(index, value)| piece(value, &format!("{param}[{index}]"), can_see);
    Ok(Content::Parts(parts.into_iter().enumerate().map(piece).collect::<Result<_, _>>()?))
}

fn piece(value: Value, name: &str, can_see: bool) -> Result<Piece, Refusal> {
    let mut fields = Fields::within(value, name)?;
    let param = fields.name("type");
    let kind = fields.string("type")?.ok_or_else(|| Refusal::missing(&param))?;
    let piece = match (kind.as_str(), can_see) {
        ("text", _) => {
            let param = fields.name("text");
            Piece::Text(fields.string("text")?.ok_or_else(|| Refusal::missing(&param))?)
        }
        ("image_url", true) => Piece::Picture(picture(&mut fields)?),
        (_, can_see) => {
            let want = match can_see {
                true => "this server reads text and pictures: want \"text\" or \"image_url\"",
                false => "this server reads text only: want \"text\"",
            };
            return Err(Refusal::about(&param, format!("`{param}` is \"{kind}\", {want}")));
        }
    };
    fields.end()?;
    Ok(piece)
}

/// `{"url": …, "detail"?: …}`.
fn picture(fields: &mut Fields) -> Result<PictureUrl, Refusal> {
    let name = fields.name("image_url");
    let value = fields.take("image_url").ok_or_else(|| Refusal::missing(&name))?;
    let mut fields = Fields::within(value, &name)?;
    let param = fields.name("url");
    let url = fields.string("url")?.ok_or_else(|| Refusal::missing(&param))?;
    let detail = fields.name("detail");
    match fields.string("detail")?.as_deref() {
        None | Some("auto" | "high") => {}
        Some(other) => {
            let want = "`auto` or `high`: a picture is read as it is, send a smaller one for less";
            return Err(Refusal::field(&detail, &Value::from(other), want));
        }
    }
    fields.end()?;
    Ok(PictureUrl { param, url })
}

//! Lists of messages: `role` and `content`, or ShareGPT's `from` and `value`.

use serde_json::{Map, Value};

use super::markers;
use super::media::Source;
use super::options::MediaUse;
use super::row::Row;
use super::sample::{Message, Part, Role};
use crate::error::Result;
use crate::record::json_type;

/// A conversation, and the images and videos that its parts carry themselves.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub(super) messages: Vec<Message>,
    pub(super) images: Vec<Source<'a>>,
    pub(super) videos: Vec<Source<'a>>,
}

impl Conversation<'_> {
    /// A conversation of one user message.
    pub(super) fn user(text: &str, media: MediaUse) -> Self {
        let messages =
            vec![Message { role: Role::User, content: content(text, Role::User, media) }];
        Self { messages, ..Self::default() }
    }

    /// Appends an assistant's turn.
    pub(super) fn reply(&mut self, text: &str) {
        let content = content(text, Role::Assistant, MediaUse::Ignored);
        self.messages.push(Message { role: Role::Assistant, content });
    }

    /// The text of the last user message without placeholders.
    pub(super) fn user_text(&self) -> String {
        let last = self.messages.iter().rfind(|message| message.role == Role::User);
        last.map(Message::text).unwrap_or_default()
    }

    /// The text of a final assistant's turn.
    pub(super) fn final_reply(&self) -> Option<String> {
        self.messages.last().filter(|last| last.role == Role::Assistant).map(Message::text)
    }
}

/// The pieces of a text. What the assistant writes has no placeholders: it cannot show images.
fn content(text: &str, role: Role, media: MediaUse) -> Vec<Part> {
    match (media, role) {
        (MediaUse::Required, Role::System | Role::User) => markers::split(text),
        _ if text.is_empty() => Vec::new(),
        _ => vec![Part::Text(text.to_owned())],
    }
}

/// Reads the list of messages in `field`.
///
/// # Errors
/// It is not a list of messages with known roles, texts and parts, or has no user message; the error names the field.
pub(super) fn read<'a>(row: &Row<'a>, field: &str, media: MediaUse) -> Result<Conversation<'a>> {
    let list = row.get(field).ok_or_else(|| row.missing(field))?;
    let Value::Array(values) = list else {
        return Err(row.type_error(field, "a list of messages", list));
    };
    let mut found = Conversation::default();
    for (index, value) in values.iter().enumerate() {
        let place = format!("{field}[{index}]");
        let Value::Object(fields) = value else {
            return Err(row.type_error(&place, "a message", value));
        };
        let role = role(row, &place, fields)?;
        let (name, value) = first_of(fields, ["content", "value"])
            .ok_or_else(|| row.record.field_error(&place, "has no `content` or `value`"))?;
        let place = format!("{place}.{name}");
        let content = match value {
            Value::String(text) => content(text, role, media),
            Value::Array(parts) => {
                let mut content = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    let place = format!("{place}[{index}]");
                    content.extend(read_part(row, &place, part, role, media, &mut found)?);
                }
                content
            }
            value => return Err(row.type_error(&place, "a string or a list of parts", value)),
        };
        found.messages.push(Message { role, content });
    }
    match found.messages.iter().any(|message| message.role == Role::User) {
        true => Ok(found),
        false => Err(row.record.field_error(field, "has no message of the user")),
    }
}

/// The first of these fields that is there and not null.
fn first_of<'a, 'n>(
    fields: &'a Map<String, Value>,
    names: [&'n str; 2],
) -> Option<(&'n str, &'a Value)> {
    let value = |name| fields.get(name).filter(|value: &&Value| !value.is_null());
    names.into_iter().find_map(|name| Some((name, value(name)?)))
}

fn role(row: &Row<'_>, place: &str, fields: &Map<String, Value>) -> Result<Role> {
    let Some((name, value)) = first_of(fields, ["role", "from"]) else {
        return Err(row.record.field_error(place, "has no `role` or `from`"));
    };
    match value.as_str() {
        Some("system") => Ok(Role::System),
        Some("user" | "human") => Ok(Role::User),
        Some("assistant" | "gpt" | "bot") => Ok(Role::Assistant),
        Some(other) => {
            let expected = "`system`, `user` (`human`) or `assistant` (`gpt`, `bot`)";
            Err(row
                .record
                .field_error(&format!("{place}.{name}"), format!("`{other}` is not {expected}")))
        }
        None => Err(row.type_error(&format!("{place}.{name}"), "a string", value)),
    }
}

/// A part of a message. An image or a video that it carries itself is added to `found`.
fn read_part<'a>(
    row: &Row<'a>,
    place: &str,
    part_value: &'a Value,
    role: Role,
    media: MediaUse,
    found: &mut Conversation<'a>,
) -> Result<Option<Part>> {
    let Value::Object(fields) = part_value else {
        return Err(row.type_error(place, "a part with a `type`", part_value));
    };
    let kind = fields.get("type").and_then(Value::as_str);
    let (part, names) = match kind {
        Some("text") => {
            return match fields.get("text") {
                Some(Value::String(text)) if text.is_empty() => Ok(None),
                Some(Value::String(text)) => Ok(Some(Part::Text(text.clone()))),
                other => {
                    let found = other.map_or("missing", json_type);
                    let reason = format!("must be a string, not {found}");
                    Err(row.record.field_error(&format!("{place}.text"), reason))
                }
            };
        }
        Some("image" | "image_url") => (Part::Image, ["image", "image_url"]),
        Some("video" | "video_url") => (Part::Video, ["video", "video_url"]),
        _ => {
            let reason = "must be `text`, `image` or `video`";
            return Err(row.record.field_error(&format!("{place}.type"), reason));
        }
    };
    if role == Role::Assistant {
        let reason = "is not text; messages of the assistant cannot show images";
        return Err(row.record.field_error(place, reason));
    }
    if media == MediaUse::Ignored {
        return Ok(None);
    }
    if let Some((name, value)) = first_of(fields, names) {
        let (field, value) = match (name, value.get("url")) {
            // A video's object has `fps` beside its frames.
            ("video", _) => (place.to_owned(), part_value),
            // OpenAI's `{"image_url": {"url": …}}`.
            (_, Some(url)) => (format!("{place}.{name}.url"), url),
            (_, None) => (format!("{place}.{name}"), value),
        };
        let sources = if part == Part::Image { &mut found.images } else { &mut found.videos };
        sources.push(Source { field, value });
    }
    Ok(Some(part))
}

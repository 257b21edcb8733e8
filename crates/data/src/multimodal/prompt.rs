//! Records with a conversational `prompt`: TRL's, with `image` or `images`, and verl's, with the answer in
//! `reward_model`.

use serde_json::Value;

use super::build::{ANSWERS, Context, Draft, IMAGES, VIDEOS, sample};
use super::conversation::{self, Conversation};
use super::media;
use super::row::{Answer, Row};
use super::sample::Sample;
use crate::error::Result;

/// TRL's record as a sample. `prompt` may be a text. A `completion`, a text or messages of the assistant, is its last
/// turn.
pub(super) fn read_trl(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    let media_use = context.options.media;
    let mut conversation = match row.get("prompt") {
        Some(Value::String(text)) => Conversation::user(text, media_use),
        _ => conversation::read(row, "prompt", media_use)?,
    };
    match row.get("completion") {
        None => {}
        Some(Value::String(text)) => conversation.reply(text),
        Some(Value::Array(messages)) => {
            let text = messages.last().and_then(|last| last.get("content")).and_then(Value::as_str);
            let reason = "must be a text or one message with a text";
            let text = text.filter(|_| messages.len() == 1);
            conversation.reply(text.ok_or_else(|| row.record.field_error("completion", reason))?);
        }
        Some(value) => return Err(row.type_error("completion", "a text or a message", value)),
    }
    let draft = Draft {
        answer: row.answer(&ANSWERS)?.or_reply(conversation.final_reply()),
        conversation,
        images: media::sources(row, &IMAGES)?,
        videos: media::sources(row, &VIDEOS)?,
        used: &["prompt", "completion"],
    };
    sample(row, context, draft)
}

/// verl's record as a sample.
pub(super) fn read_verl(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    const ANSWER: &str = "reward_model.ground_truth";
    let truth = row.get("reward_model").and_then(|model| model.get("ground_truth"));
    let truth = truth.filter(|value| !value.is_null());
    let texts = truth.map(|value| row.answer_texts(ANSWER, value)).transpose()?;
    let draft = Draft {
        conversation: conversation::read(row, "prompt", context.options.media)?,
        answer: Answer { column: None, texts: texts.unwrap_or_default() },
        images: media::sources(row, &IMAGES)?,
        videos: media::sources(row, &VIDEOS)?,
        used: &["prompt"],
    };
    sample(row, context, draft)
}

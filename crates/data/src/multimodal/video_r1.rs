//! Video-R1's records: `problem`, `problem_type`, `data_type`, `path`, `options`, and the `solution` in `<answer>`
//! tags; those of its SFT also have the reasoning, `process`.

use serde_json::Value;

use super::build::{ANSWERS, Context, Draft, sample};
use super::conversation::Conversation;
use super::hugging_face::{PROBLEMS, problem};
use super::media;
use super::row::Row;
use super::sample::Sample;
use crate::error::Result;

/// A record as a sample. With `process`, it has an assistant's turn: `process`, a line feed, and `solution`.
pub(super) fn read(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    let text = problem(row)?;
    let mut conversation = Conversation::user(&with_options(row, text)?, context.options.media);
    let answer = row.answer(&ANSWERS)?;
    if let Some(process) = row.optional_text("process")? {
        let text = answer.texts.first().map_or("", String::as_str);
        conversation.reply(&format!("{process}\n{text}"));
    }
    let sources = media::sources(row, &["path"])?;
    let (images, videos) = match row.optional_text("data_type")? {
        Some("image") => (sources, Vec::new()),
        Some("video") | None => (Vec::new(), sources),
        Some(other) => {
            let reason = format!("must be `image` or `video`, not `{other}`");
            return Err(row.record.field_error("data_type", reason));
        }
    };
    let used = [PROBLEMS.as_slice(), &["path", "process"]].concat();
    sample(row, context, Draft { conversation, answer, images, videos, used: &used })
}

/// The problem with `options`, as Video-R1 asks: `Options:` and a line per option. Options that the text has already,
/// and those of other types than multiple choice, are not added.
pub(super) fn with_options(row: &Row<'_>, text: &str) -> Result<String> {
    let Some(value) = row.get("options") else { return Ok(text.to_owned()) };
    let options = match value {
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let field = format!("options[{index}]");
                value.as_str().ok_or_else(|| row.type_error(&field, "a string", value))
            })
            .collect::<Result<Vec<&str>>>()?,
        value => return Err(row.type_error("options", "a list of strings", value)),
    };
    let kind = row.optional_text("problem_type")?.unwrap_or("multiple choice");
    let is_choice = matches!(kind, "multiple choice" | "multiple-choice" | "multiple_choice");
    if !is_choice || options.iter().all(|option| text.contains(option)) {
        return Ok(text.to_owned());
    }
    let line_feed = if text.ends_with(char::is_whitespace) { "" } else { "\n" };
    let lines: String = options.iter().map(|option| format!("{option}\n")).collect();
    Ok(format!("{text}{line_feed}Options:\n{lines}"))
}

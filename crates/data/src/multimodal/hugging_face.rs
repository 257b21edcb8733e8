//! Records of `problem` (or `question`) and `answer` (or `solution`): EasyR1's data sets and question files on the
//! Hugging Face Hub, with `images` or `videos`; Embodied-R1.5 adds `problem_type`, `options` and others.

use serde_json::Value;

use super::build::{Context, Draft, IMAGES, VIDEOS, sample};
use super::conversation::Conversation;
use super::media;
use super::row::Row;
use super::sample::Sample;
use crate::error::Result;

/// Columns of the text.
pub(super) const PROBLEMS: [&str; 2] = ["problem", "question"];

/// A record as a sample.
pub(super) fn read(row: &Row<'_>, context: Context<'_>) -> Result<Sample> {
    let text = problem(row)?;
    let draft = Draft {
        conversation: Conversation::user(&with_options(row, text)?, context.options.media),
        answer: row.answer(&["answer", "solution", "ground_truth"])?,
        images: media::sources(row, &IMAGES)?,
        videos: media::sources(row, &VIDEOS)?,
        used: &PROBLEMS,
    };
    sample(row, context, draft)
}

/// The text of the problem.
pub(super) fn problem<'a>(row: &Row<'a>) -> Result<&'a str> {
    let (name, value) = row.one_of(&PROBLEMS)?.ok_or_else(|| row.missing("question"))?;
    value.as_str().ok_or_else(|| row.type_error(name, "a string", value))
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

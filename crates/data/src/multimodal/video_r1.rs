//! Video-R1's records: `problem`, `problem_type`, `data_type`, `path`, `options`, and the `solution` in `<answer>`
//! tags; those of its SFT also have the reasoning, `process`.

use super::build::{ANSWERS, Context, Draft, sample};
use super::conversation::Conversation;
use super::hugging_face::{PROBLEMS, problem, with_options};
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
